/*
 * http_server.c - the server's life: made, stopped, freed; see http_server.h. The rest of it: http_listen.c
 * accepts, http_conn.c drives a connection, http_parse.c reads requests, http_exchange.c is what handlers
 * use, http_io.c moves the bytes.
 *
 * It owns its listeners and connections; loop thread only. mr_http_server_free may not be called from
 * inside a callback of this server.
 */
#include "net/http_conn_t.h"

int mr_http_server_new(struct mr_http_server **out, struct mr_loop *l, const struct mr_http_server_opts *o,
                       struct mr_err *err)
{
  const struct mr_sys *sys = mr_loop_sys(l);
  struct mr_http_server *s = mr_mem_zalloc(&sys->mem, sizeof *s);

  *out = NULL;
  if (!s || !(s->in = mr_mem_alloc(&sys->mem, MR_HTTP_IN_SIZE))) {
    mr_mem_free(&sys->mem, s);
    return mr_err_nomem(err);
  }
  s->l = l;
  s->sys = sys;
  s->mem = &sys->mem;
  s->o = *o;
  s->o.max_connections = o->max_connections ? o->max_connections : 10000;
  s->o.max_header = o->max_header ? o->max_header : 32 << 10;
  s->o.idle_ms = o->idle_ms ? o->idle_ms : 75000;
  s->o.header_ms = o->header_ms ? o->header_ms : 15000;
  s->o.max_out = o->max_out ? o->max_out : 4 << 20;
  s->o.max_streams = o->max_streams ? o->max_streams : (size_t)256 << 20;
  mr_buf_init(&s->head, s->mem, 1 << 20);
  *out = s;
  return MR_OK;
}

void mr_http_server_stop(struct mr_http_server *s)
{
  if (s->stopping) return;
  s->stopping = true;
  mr_http_listeners_close(s);
  for (struct mr_http_conn *c = s->conns; c; c = c->next)
    mr_http_conn_wake(c);
}

int mr_http_server_active(const struct mr_http_server *s)
{
  return s->active;
}

void mr_http_server_free(struct mr_http_server **sp)
{
  struct mr_http_server *s = *sp;

  if (!s) return;
  s->stopping = true;
  while (s->conns)
    mr_http_conn_kill(s->conns);
  mr_http_listeners_close(s);
  mr_http_parse_drop_spare(s);
  mr_buf_free(&s->head);
  mr_mem_free(s->mem, s->in);
  mr_mem_free(s->mem, s->shared);
  mr_mem_free(s->mem, s);
  *sp = NULL;
}

void mr_http_server_stats(const struct mr_http_server *s, struct mr_http_server_stats *out)
{
  *out = s->stats;
  out->max_out = s->o.max_out;
  out->max_streams = s->o.max_streams;
}
