/*
 * work_doc.c - an item of the work queue as a document, and as clients see it (API: resources §8.2); see work_t.h.
 * What a document holds is private: times in microseconds, who was given the item, the hashes of its bearers. Clients
 * see the state that it is in now, which a lease that ended has changed. Called by the other files of the queue.
 */
#include "agent/work_t.h"

#include <stdio.h>

static const char *const states[] = {"queued", "starting", "active", "stopping", "stopped"};

/* ---- what clients see ---- */

enum mr_work_state mr_work_shows(const struct mr_work *w, int64_t now_us)
{
  if (w->state == MR_WORK_QUEUED || w->state == MR_WORK_STOPPED || w->lease_us > now_us) return w->state;
  return w->state == MR_WORK_STOPPING ? MR_WORK_STOPPED : MR_WORK_QUEUED;
}

const char *mr_work_state_name(enum mr_work_state st)
{
  return states[st];
}

static void time_or_null(struct mr_jw *w, const char *key, int64_t us)
{
  mr_jw_ktime(w, key, us ? us : -1);
}

void mr_work_wire(struct mr_domain *d, const struct mr_work *w, const char *secret, struct mr_buf *out)
{
  enum mr_work_state shows = mr_work_shows(w, mr_loop_wall_us(d->loop));
  bool back = shows == MR_WORK_QUEUED; /* whatever its last worker did is over */
  struct mr_jw j;

  mr_jw_init(&j, out);
  mr_jw_obj(&j);
  mr_jw_kc(&j, "id", w->id);
  mr_jw_kc(&j, "type", "work");
  mr_jw_kc(&j, "environment_id", w->environment_id);
  mr_jw_kc(&j, "state", states[shows]);
  mr_jw_key(&j, "data");
  mr_jw_obj(&j);
  mr_jw_kc(&j, "type", "session");
  mr_jw_kc(&j, "id", w->session_id);
  mr_jw_obj_end(&j);
  mr_jw_kraw(&j, "metadata", mr_str_c(w->metadata ? w->metadata : "{}"));
  mr_jw_kraw(&j, "secret", mr_str_c(secret));
  mr_jw_ktime(&j, "created_at", w->created_us);
  time_or_null(&j, "acknowledged_at", back ? 0 : w->acked_us);
  time_or_null(&j, "started_at", back ? 0 : w->started_us);
  time_or_null(&j, "latest_heartbeat_at", back ? 0 : w->beat_us);
  time_or_null(&j, "stop_requested_at", w->stop_asked_us);
  time_or_null(&j, "stopped_at", w->stopped_us ? w->stopped_us : shows == MR_WORK_STOPPED ? w->lease_us : 0);
  mr_jw_obj_end(&j);
}

/* ---- documents ---- */

static void write_body(const struct mr_work *w, struct mr_buf *b)
{
  struct mr_jw j;

  mr_jw_init(&j, b);
  mr_jw_obj(&j);
  mr_jw_kc(&j, "session_id", w->session_id);
  mr_jw_kc(&j, "state", states[w->state]);
  mr_jw_kint(&j, "acked_us", w->acked_us);
  mr_jw_kint(&j, "started_us", w->started_us);
  mr_jw_kint(&j, "beat_us", w->beat_us);
  mr_jw_kint(&j, "stop_asked_us", w->stop_asked_us);
  mr_jw_kint(&j, "claimed_us", w->claimed_us);
  mr_jw_kint(&j, "lease_us", w->lease_us);
  mr_jw_kint(&j, "ttl_s", w->ttl_s);
  mr_jw_kc(&j, "token", w->token);
  mr_jw_key(&j, "past");
  mr_jw_arr(&j);
  for (int i = 0; i < MR_WORK_PAST && w->past[i][0]; i++)
    mr_jw_c(&j, w->past[i]);
  mr_jw_arr_end(&j);
  mr_jw_key(&j, "again");
  mr_jw_bool(&j, w->again);
  mr_jw_kraw(&j, "metadata", mr_str_c(w->metadata ? w->metadata : "{}"));
  mr_jw_obj_end(&j);
}

void mr_work_clear(struct mr_domain *d, struct mr_work *w)
{
  mr_mem_free(d->mem, w->metadata);
  w->metadata = NULL;
}

static int read_body(struct mr_domain *d, struct mr_work *w, yyjson_val *o)
{
  yyjson_val *past = mr_json_get(o, "past"), *metadata = mr_json_get(o, "metadata");
  struct mr_str state = mr_json_get_str(o, "state");
  struct mr_buf b;
  int st = 0;

  while (st < MR_WORK_STOPPED && !mr_str_is(state, states[st]))
    st++;
  w->state = (enum mr_work_state)st;
  w->acked_us = mr_json_get_int(o, "acked_us", 0);
  w->started_us = mr_json_get_int(o, "started_us", 0);
  w->beat_us = mr_json_get_int(o, "beat_us", 0);
  w->stop_asked_us = mr_json_get_int(o, "stop_asked_us", 0);
  w->claimed_us = mr_json_get_int(o, "claimed_us", 0);
  w->lease_us = mr_json_get_int(o, "lease_us", 0);
  w->ttl_s = mr_json_get_int(o, "ttl_s", d->lease_s);
  w->again = mr_json_get_bool(o, "again", false);
  snprintf(w->session_id, sizeof w->session_id, MR_FMT, MR_ARG(mr_json_get_str(o, "session_id")));
  snprintf(w->token, sizeof w->token, MR_FMT, MR_ARG(mr_json_get_str(o, "token")));
  for (size_t i = 0; i < MR_WORK_PAST; i++)
    snprintf(w->past[i], sizeof w->past[i], MR_FMT, MR_ARG(mr_json_str(yyjson_arr_get(past, i))));
  mr_work_clear(d, w);
  if (yyjson_obj_size(metadata) == 0) return MR_OK;
  mr_buf_init(&b, d->mem, 1 << 16);
  mr_json_write(&b, metadata, false);
  w->metadata = mr_mem_strdup(d->mem, mr_buf_get(&b));
  mr_buf_free(&b);
  return w->metadata ? MR_OK : MR_E_NOMEM;
}

int mr_work_read(struct mr_domain *d, struct mr_work *w, int64_t ws, const struct mr_doc_row *r)
{
  yyjson_doc *doc = NULL;
  int code = mr_json_parse(d->mem, r->body, SIZE_MAX, &doc, NULL);

  if (code != MR_OK) return code == MR_E_NOMEM ? code : MR_E_INTERNAL;
  w->ws = ws;
  w->rev = r->rev;
  w->created_us = r->created_us;
  w->stopped_us = r->archived_us;
  snprintf(w->id, sizeof w->id, MR_FMT, MR_ARG(r->id));
  snprintf(w->environment_id, sizeof w->environment_id, MR_FMT, MR_ARG(r->parent));
  code = read_body(d, w, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  return code;
}

/* The live ones are also named in the key space "moonrig.work", so that a start reads no others. */
void mr_work_put(struct mr_domain *d, struct mr_work *w, struct mr_commit *cm)
{
  struct mr_doc_row row = {.kind = MR_S("work"), .id = mr_str_c(w->id), .parent = mr_str_c(w->environment_id)};
  struct mr_kv_row live = {.space = MR_S("moonrig.work"), .key = mr_str_c(w->id), .value = MR_S("{}")};
  struct mr_buf b;

  mr_buf_init(&b, d->mem, 1 << 20);
  write_body(w, &b);
  row.name = mr_str_c(w->session_id);
  row.rev = w->rev + 1;
  row.created_us = w->created_us;
  row.updated_us = mr_loop_wall_us(d->loop);
  row.archived_us = w->stopped_us;
  row.body = mr_buf_get(&b);
  mr_commit_doc_put(cm, &row, w->rev);
  if (w->rev == 0)
    mr_commit_kv_put(cm, &live, -1);
  else if (w->state == MR_WORK_STOPPED)
    mr_commit_kv_delete(cm, live.space, live.key, -1);
  w->rev++;
  w->commits++;
  mr_buf_free(&b);
}
