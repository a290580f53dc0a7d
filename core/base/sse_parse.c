/* sse_parse.c - text/event-stream, incrementally; see sse_parse.h. */
#include "base/sse_parse.h"

void mr_sse_parser_init(struct mr_sse_parser *p, const struct mr_mem *m, size_t max_frame,
                        int (*fn)(void *ud, struct mr_str event, struct mr_str data), void *ud)
{
  memset(p, 0, sizeof *p);
  mr_buf_init(&p->line, m, max_frame);
  mr_buf_init(&p->data, m, max_frame);
  mr_buf_init(&p->event, m, 256);
  p->max_frame = max_frame;
  p->fn = fn;
  p->ud = ud;
}

void mr_sse_parser_free(struct mr_sse_parser *p)
{
  mr_buf_free(&p->line);
  mr_buf_free(&p->data);
  mr_buf_free(&p->event);
}

/* One whole line without its end. */
static int sse_line(struct mr_sse_parser *p, struct mr_str line)
{
  struct mr_str name = line, value = {NULL, 0};
  const char *colon;
  int r = MR_OK;

  if (!p->bom_done) {
    p->bom_done = true;
    if (mr_str_starts(line, MR_S("\xef\xbb\xbf"))) line.p += 3, line.n -= 3;
    name = line;
  }
  if (line.n == 0) {
    if (p->any) r = p->fn(p->ud, mr_buf_get(&p->event), mr_buf_get(&p->data));
    mr_buf_reset(&p->event);
    mr_buf_reset(&p->data);
    p->any = false;
    return r;
  }
  colon = memchr(line.p, ':', line.n);
  if (colon == line.p) return MR_OK; /* a comment */
  if (colon) {
    name.n = (size_t)(colon - line.p);
    value = mr_str_n(colon + 1, line.n - name.n - 1);
    if (value.n && value.p[0] == ' ') value.p++, value.n--;
  }
  if (mr_str_is(name, "event")) {
    mr_buf_reset(&p->event);
    mr_buf_str(&p->event, value);
  } else if (mr_str_is(name, "data")) {
    if (p->any) mr_buf_char(&p->data, '\n');
    mr_buf_str(&p->data, value);
    p->any = true;
  }
  if (p->event.failed || p->data.failed) return p->event.failed ? p->event.failed : p->data.failed;
  return MR_OK;
}

int mr_sse_parser_feed(struct mr_sse_parser *p, struct mr_str in)
{
  if (p->line.failed || p->data.failed || p->event.failed) return MR_E_TOO_LARGE;
  while (in.n) {
    size_t k = 0;
    int r;

    if (p->skip_lf && in.p[0] == '\n') {
      p->skip_lf = false;
      in.p++, in.n--;
      continue;
    }
    p->skip_lf = false;
    while (k < in.n && in.p[k] != '\n' && in.p[k] != '\r')
      k++;
    if (k == in.n) {
      mr_buf_str(&p->line, in);
      return p->line.failed ? p->line.failed : MR_OK;
    }
    p->skip_lf = in.p[k] == '\r';
    if (p->line.n) {
      mr_buf_add(&p->line, in.p, k);
      r = p->line.failed ? p->line.failed : sse_line(p, mr_buf_get(&p->line));
      mr_buf_reset(&p->line);
    } else {
      r = sse_line(p, mr_str_n(in.p, k));
    }
    if (r != MR_OK) return r;
    in.p += k + 1;
    in.n -= k + 1;
  }
  return MR_OK;
}
