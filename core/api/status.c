/* status.c - what operators ask: /health (JSON) and /metrics (Prometheus text). No key is needed: neither
 * names anything of a session. */
#include "api/api_t.h"
#include "model/model.h"

void mr_api_health(struct mr_exchange *q)
{
  struct mr_api *a = q->a;
  struct mr_err why;
  bool refusing = mr_store_failing(a->o.store, &why);
  struct mr_buf b;

  mr_buf_init(&b, a->mem, 1 << 12);
  mr_buf_printf(&b, "{\"status\":\"%s\",\"version\":\"" MR_VERSION "\"",
                a->stopping ? "stopping"
                : refusing  ? "read_only"
                            : "ok");
  if (refusing) {
    mr_buf_c(&b, ",\"reason\":");
    mr_json_quote(&b, mr_str_c(why.message));
  }
  if (a->o.health) {
    mr_buf_char(&b, ',');
    a->o.health(a->o.ud, &b);
  }
  mr_buf_char(&b, '}');
  mr_exchange_json(q, refusing || a->stopping ? 503 : 200, mr_buf_get(&b));
  mr_buf_free(&b);
}

static void metric(struct mr_buf *b, const char *name, const char *kind, const char *help, double value)
{
  mr_buf_printf(b, "# HELP moonrig_%s %s\n# TYPE moonrig_%s %s\nmoonrig_%s %.17g\n", name, help, name, kind,
                name, value);
}

/* One gauge with a line for each provider. */
static void providers(struct mr_buf *b, const struct mr_models *m, const char *name, const char *help, int what)
{
  struct mr_provider_stats p;

  mr_buf_printf(b, "# HELP moonrig_%s %s\n# TYPE moonrig_%s gauge\n", name, help, name);
  for (int i = 0; mr_models_stats(m, i, &p); i++)
    mr_buf_printf(b, "moonrig_%s{provider=\"%s\"} %.17g\n", name, p.name,
                  what == 0   ? (double)p.running
                  : what == 1 ? (double)p.waiting
                              : (double)p.paused_ms / 1000);
}

void mr_api_metrics(struct mr_exchange *q)
{
  struct mr_str head[2] = {MR_S("content-type: text/plain; version=0.0.4; charset=utf-8")};
  struct mr_domain_stats d;
  struct mr_http_server_stats h;
  struct mr_buf b;

  mr_domain_stats(q->a->o.domain, &d);
  mr_http_server_stats(q->a->http, &h);
  mr_buf_init(&b, q->a->mem, 1 << 16);
  metric(&b, "turns_total", "counter", "Turns that came to an end.", (double)d.turns);
  metric(&b, "model_requests_total", "counter", "Requests to models.", (double)d.model_requests);
  metric(&b, "tool_calls_total", "counter", "Tool calls, of all kinds.", (double)d.tool_calls);
  metric(&b, "events_total", "counter", "Events written to session logs.", (double)d.events);
  metric(&b, "sessions_loaded", "gauge", "Sessions in memory.", d.sessions_loaded);
  metric(&b, "model_requests_running", "gauge", "Requests to models in flight.", d.model_running);
  metric(&b, "model_fallbacks_total", "counter", "Requests that went on to another provider.",
         (double)mr_models_fallbacks(q->a->o.models));
  providers(&b, q->a->o.models, "provider_running", "Requests at a model provider.", 0);
  providers(&b, q->a->o.models, "provider_waiting", "Requests in line for a model provider.", 1);
  providers(&b, q->a->o.models, "provider_paused_seconds", "What is left of a pause that it asked for.", 2);
  metric(&b, "sandbox_calls_running", "gauge", "Tool calls in sandboxes.", d.tools_running);
  metric(&b, "sandbox_requests_total", "counter", "Hosts that sandboxes asked for and were let to.",
         (double)d.egress.allowed);
  metric(&b, "sandbox_requests_denied_total", "counter", "What was refused to them.",
         (double)(d.egress.denied + d.egress.unknown));
  metric(&b, "handlers_running", "gauge", "Tool calls in handlers of this server.", d.handlers_running);
  metric(&b, "streams_open", "gauge", "Subscribers of event streams.", d.subscribers);
  metric(&b, "streams_waiting_bytes", "gauge", "Memory of what waits for readers of event streams.",
         (double)h.stream_bytes);
  metric(&b, "streams_waiting_bytes_max", "gauge", "The most of that so far.", (double)h.stream_bytes_max);
  metric(&b, "streams_waiting_bytes_bound", "gauge", "Its bound: the readers farthest behind are cut over it.",
         (double)h.max_streams);
  metric(&b, "stream_reader_bytes_max", "gauge", "The most that waited for one reader so far.",
         (double)h.reader_max);
  metric(&b, "stream_reader_bytes_bound", "gauge",
         "Its bound: a reader is cut over it; one piece more is taken.", (double)h.max_out);
  metric(&b, "streams_cut_total", "counter", "Readers that were cut because they were too slow.",
         (double)h.cut);
  metric(&b, "stream_events_total", "counter", "Events sent on streams, pings too.", (double)h.events);
  metric(&b, "http_connections", "gauge", "Open connections.", h.connections);
  metric(&b, "http_requests_total", "counter", "Requests received.", (double)h.requests);
  metric(&b, "http_refused_total", "counter", "Connections and requests refused before a handler.",
         (double)h.refused);
  metric(&b, "http_sent_bytes_total", "counter", "Bytes sent.", (double)h.bytes_out);
  mr_buf_c(&b, "# HELP moonrig_http_responses_total Answers by class of status.\n"
               "# TYPE moonrig_http_responses_total counter\n");
  for (int i = 1; i < 6; i++)
    mr_buf_printf(&b, "moonrig_http_responses_total{class=\"%dxx\"} %llu\n", i,
                  (unsigned long long)q->a->answered[i]);
  q->answered = true;
  head[1] = mr_str_c(mr_arena_printf(q->arena, "request-id: %s", q->id));
  mr_http_reply(q->x, 200, head, 2, mr_buf_get(&b));
  mr_buf_free(&b);
}
