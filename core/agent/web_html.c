/*
 * web_html.c - a page as text that a model reads well. libxml2's HTML parser tells what it meets as it goes (SAX): no
 * tree is made, so memory is bounded by the text, and whatever it tells, errors too, looks at the clock and can stop it.
 * Parsers that make an HTML5 tree can be asked neither to stop nor how deep they are, and the text needs no exact tree.
 * (Its push parser would stop between pieces; but it loses count of quotes at their borders, and then waits for the end.)
 *
 * Kept: text, headings (#), lists (-), links as [text](absolute URL), alternative texts of images, rows of tables with
 * "|", preformatted text. Left out: scripts, styles, templates, forms' innards, what is marked as hidden. Pool threads.
 */
#include "agent/web.h"

#include <libxml/HTMLparser.h>
#include <time.h>

enum {
  TIME_MS = 3000,
  LOOK_EACH = 32, /* calls from one look at the clock to the next */
  NAMES_MAX =
      16 << 10, /* bytes of all names of elements and attributes: a tag takes time with the square of its own */
  TITLE_MAX = 500,
  LINKS = 16,
  DEPTH_MAX = 1000
};

struct reader {
  const char *base;
  struct mr_weburl base_url; /* of <base href> */
  struct mr_buf *out, *title;
  htmlParserCtxtPtr ctxt;
  int64_t end_ms;
  const int *give_up;
  int calls;
  bool stopped;
  int skip;  /* within so many elements that are left out */
  int pre;   /* within so many that keep their space */
  int depth; /* of lists */
  int open;  /* elements */
  bool in_title, titled;
  int breaks; /* line ends that are due: 1 or 2 */
  bool space; /* a space is due */
  bool any;   /* the text has begun */
  bool mark;  /* a mark of a list or of a heading was written, and its text comes on the same line */
  struct {
    size_t at; /* where its text begins in out */
    struct mr_weburl *url;
  } links[LINKS];
  int nlinks;
  struct mr_weburl urls[LINKS];
};

enum what {
  INLINE = 0,
  BLOCK = 1,
  PARA = 2,
  SKIP = 4,
  PRE = 8,
  LIST = 16,
  ITEM = 32,
  CELL = 64,
  HEAD = 128,
  RULE = 256
};

static const struct {
  const char *name;
  int what;
} elements[] = {
    {"p", PARA},      {"div", BLOCK},        {"section", PARA},  {"article", PARA},  {"header", PARA},
    {"footer", PARA}, {"main", PARA},        {"nav", PARA},      {"aside", PARA},    {"h1", HEAD},
    {"h2", HEAD},     {"h3", HEAD},          {"h4", HEAD},       {"h5", HEAD},       {"h6", HEAD},
    {"ul", LIST},     {"ol", LIST},          {"menu", LIST},     {"dl", PARA},       {"dt", BLOCK},
    {"dd", BLOCK},    {"li", ITEM},          {"table", PARA},    {"tr", BLOCK},      {"td", CELL},
    {"th", CELL},     {"caption", BLOCK},    {"pre", PRE},       {"textarea", SKIP}, {"blockquote", PARA},
    {"figure", PARA}, {"figcaption", BLOCK}, {"address", BLOCK}, {"br", BLOCK},      {"hr", RULE},
    {"form", PARA},   {"fieldset", PARA},    {"details", PARA},  {"summary", BLOCK}, {"script", SKIP},
    {"style", SKIP},  {"template", SKIP},    {"svg", SKIP},      {"math", SKIP},     {"iframe", SKIP},
    {"object", SKIP}, {"select", SKIP},      {"button", SKIP},   {"canvas", SKIP},   {"audio", SKIP},
    {"video", SKIP},  {"option", SKIP},      {"noembed", SKIP},  {"noframes", SKIP}, {"hgroup", PARA},
    {"tbody", BLOCK}};

static int what_is(const char *name)
{
  for (size_t i = 0; i < sizeof elements / sizeof *elements; i++)
    if (strcmp(name, elements[i].name) == 0) return elements[i].what;
  return INLINE;
}

static const char *attribute(const xmlChar **atts, const char *name)
{
  for (; atts && atts[0]; atts += 2)
    if (strcmp((const char *)atts[0], name) == 0) return atts[1] ? (const char *)atts[1] : "";
  return NULL;
}

/* ---- stopping ---- */

static int64_t now_ms(void)
{
  struct timespec t;

  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void stop(struct reader *r)
{
  if (!r->stopped) xmlStopParser(r->ctxt);
  r->stopped = true;
}

/* With each thing that the parser tells. */
static void look(struct reader *r)
{
  if (r->out->failed || r->out->n >= MR_WEBPAGE_TEXT_MAX || r->open > DEPTH_MAX) stop(r);
  if (++r->calls % LOOK_EACH) return;
  if (now_ms() > r->end_ms || (r->give_up && __atomic_load_n(r->give_up, __ATOMIC_RELAXED))) stop(r);
}

static void on_error(void *ud, const char *text, ...)
{
  (void)text;
  look(ud);
}

/* ---- writing ---- */

static void due(struct reader *r, int breaks)
{
  if (breaks > r->breaks && !r->mark) r->breaks = breaks;
}

/* What is due before text: not at the very beginning. */
static void settle(struct reader *r)
{
  if (r->any && r->breaks) {
    mr_buf_c(r->out, r->breaks > 1 ? "\n\n" : "\n");
    for (int i = 1; i < r->depth && i < 8; i++)
      mr_buf_c(r->out, "  ");
  } else if (r->any && r->space) {
    mr_buf_char(r->out, ' ');
  }
  r->breaks = 0;
  r->space = r->mark = false;
  r->any = true;
}

static bool blank(char c)
{
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void words(struct reader *r, const char *p, size_t n)
{
  for (size_t i = 0, to; i < n; i = to) {
    for (to = i; to < n && blank(p[to]);)
      to++;
    if (to > i) r->space = true;
    if (to == n) break;
    i = to;
    while (to < n && !blank(p[to]))
      to++;
    settle(r);
    mr_buf_add(r->out, p + i, to - i);
  }
}

static void on_text(void *ud, const xmlChar *text, int n)
{
  struct reader *r = ud;

  look(r);
  if (n <= 0 || r->stopped) return;
  if (r->in_title) {
    if (!r->titled && r->title->n < TITLE_MAX) mr_buf_add(r->title, text, (size_t)n);
    return;
  }
  if (r->skip) return;
  if (!r->pre) {
    words(r, (const char *)text, (size_t)n);
    return;
  }
  settle(r);
  mr_buf_add(r->out, text, (size_t)n);
}

/* ---- links ---- */

static void link_begins(struct reader *r, const char *href)
{
  struct mr_weburl *u = &r->urls[r->nlinks];

  if (r->nlinks == LINKS) return;
  if (href && mr_weburl_read(u, r->base, mr_str_trim(mr_str_c(href)), NULL) != MR_OK) href = NULL;
  if (href) settle(r);
  r->links[r->nlinks].url = href ? u : NULL;
  if (href) mr_buf_char(r->out, '[');
  r->links[r->nlinks++].at = r->out->n;
}

/* A link without text says nothing; one whose text is its address says it once. */
static void link_ends(struct reader *r)
{
  const struct mr_weburl *u;
  struct mr_str text;
  size_t at;

  if (!r->nlinks) return;
  at = r->links[--r->nlinks].at;
  u = r->links[r->nlinks].url;
  if (!u || r->out->failed || at > r->out->n) return;
  text = mr_str_trim(mr_str_n(r->out->p + at, r->out->n - at));
  if (!text.n) {
    r->out->p[r->out->n = at - 1] = '\0';
    return;
  }
  mr_buf_printf(r->out, "](%s)", u->url);
}

/* ---- elements ---- */

static bool hidden(const xmlChar **atts)
{
  const char *style = attribute(atts, "style"), *aria = attribute(atts, "aria-hidden");

  return attribute(atts, "hidden") || (aria && strcmp(aria, "true") == 0) ||
         (style && (strstr(style, "display:none") || strstr(style, "display: none")));
}

static void image(struct reader *r, const xmlChar **atts)
{
  const char *alt = attribute(atts, "alt");

  if (!alt || !alt[0]) return;
  settle(r);
  mr_buf_printf(r->out, "[image: %.300s]", alt);
}

static void block_begins(struct reader *r, const char *name, int what)
{
  if (what & (PARA | HEAD | PRE | RULE)) due(r, 2);
  if (what & (BLOCK | ITEM)) due(r, 1);
  if (what & LIST) due(r, r->depth++ ? 1 : 2);
  if (what & HEAD) {
    settle(r);
    for (int i = '0'; i < name[1]; i++)
      mr_buf_char(r->out, '#');
    r->space = r->mark = true;
  }
  if (what & ITEM) {
    settle(r);
    mr_buf_char(r->out, '-');
    r->space = r->mark = true;
  }
  if (what & CELL && !r->breaks) {
    r->space = true;
    settle(r);
    mr_buf_char(r->out, '|');
    r->space = true;
  }
  if (what & PRE) {
    settle(r);
    mr_buf_c(r->out, "```\n");
    r->pre++;
  }
  if (what & RULE) {
    settle(r);
    mr_buf_c(r->out, "---");
    due(r, 2);
  }
}

static void on_start(void *ud, const xmlChar *name_, const xmlChar **atts)
{
  struct reader *r = ud;
  const char *name = (const char *)name_;
  int what = what_is(name);

  r->open++;
  look(r);
  if (r->stopped) return;
  if (r->skip || what & SKIP || hidden(atts)) {
    r->skip++;
    return;
  }
  if (strcmp(name, "title") == 0) r->in_title = true;
  if (strcmp(name, "base") == 0 && r->base != r->base_url.url && attribute(atts, "href") &&
      mr_weburl_read(&r->base_url, r->base, mr_str_trim(mr_str_c(attribute(atts, "href"))), NULL) == MR_OK)
    r->base = r->base_url.url;
  if (strcmp(name, "a") == 0) link_begins(r, attribute(atts, "href"));
  if (strcmp(name, "img") == 0) image(r, atts);
  block_begins(r, name, what);
}

static void on_end(void *ud, const xmlChar *name_)
{
  struct reader *r = ud;
  const char *name = (const char *)name_;
  int what = what_is(name);

  r->open--;
  look(r);
  if (r->stopped) return;
  if (r->skip) {
    r->skip--;
    return;
  }
  if (strcmp(name, "title") == 0) {
    r->in_title = false;
    r->titled = r->title->n > 0;
  }
  if (strcmp(name, "a") == 0) link_ends(r);
  if (what & (ITEM | HEAD)) r->mark = false;
  if (what & PRE && r->pre) {
    r->pre--;
    mr_buf_c(r->out, "\n```");
  }
  if (what & LIST && r->depth) r->depth--;
  if (what & (PARA | HEAD | PRE)) due(r, 2);
  if (what & LIST) due(r, r->depth ? 1 : 2);
  if (what & (BLOCK | ITEM)) due(r, 1);
}

int mr_webpage_html(struct mr_str html, const char *url, const int *give_up, struct mr_buf *out,
                    struct mr_buf *title)
{
  static const htmlSAXHandler sax = {.startElement = on_start,
                                     .endElement = on_end,
                                     .characters = on_text,
                                     .ignorableWhitespace = on_text,
                                     .cdataBlock = NULL, /* what scripts and styles hold */
                                     .warning = on_error,
                                     .error = on_error,
                                     .initialized = 1};
  struct reader *r = mr_mem_zalloc(out->mem, sizeof *r);

  if (!r) return MR_E_NOMEM;
  r->base = url;
  r->out = out;
  r->title = title;
  r->give_up = give_up;
  r->end_ms = now_ms() + TIME_MS;
  r->ctxt = htmlNewParserCtxt();
  if (!r->ctxt) {
    mr_mem_free(out->mem, r);
    return MR_E_NOMEM;
  }
  *r->ctxt->sax = sax;
  r->ctxt->userData = r;
  xmlDictSetLimit(r->ctxt->dict, NAMES_MAX);
  if (html.n)
    xmlFreeDoc(htmlCtxtReadMemory(r->ctxt, html.p, (int)html.n, NULL, "UTF-8",
                                  HTML_PARSE_RECOVER | HTML_PARSE_NONET | HTML_PARSE_IGNORE_ENC));
  if (r->stopped) mr_buf_c(out, "\n\n[The page goes on; the rest is left out.]");
  htmlFreeParserCtxt(r->ctxt);
  mr_mem_free(out->mem, r);
  return out->failed ? out->failed : title->failed;
}
