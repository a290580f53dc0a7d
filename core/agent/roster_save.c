/*
 * roster_save.c - "multiagent" of an agent that is saved, and of a session that is made (API: resources
 * §2.6). Two forms: a coordinator's plain list, replaced as a whole; and multiagent_20261001, of which an
 * update merges level by level over what is stored. What is written is always the full form, every agent at a
 * version.
 *
 * An agent that names its own id in its roster means itself, as it is shown so: what was read can be sent
 * back.
 */
#include "agent/roster.h"

#include <stdio.h>

struct writing {
  struct mr_call *c;
  const struct mr_members *m;
  const struct mr_roster_owner *who;
  struct mr_jw *w;
  bool kept; /* the list is the stored one: it was checked when it was saved */
  struct mr_str seen[MR_ROSTER_MAX];
  int nseen;
  struct mr_str advisor; /* of a coordinator's list: written last */
};

static int bad(struct writing *k, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int bad(struct writing *k, const char *field, const char *fmt, ...)
{
  char text[300];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return mr_err_set(&k->c->err, MR_E_INVALID, field, "%s: %s", field, text);
}

/* ---- one entry ---- */

static bool is_self(const struct writing *k, yyjson_val *v)
{
  struct mr_str id = yyjson_is_str(v) ? mr_json_str(v) : mr_json_get_str(v, "id");
  return mr_str_is(mr_json_get_str(v, "type"), "self") || mr_str_eq(id, k->who->id);
}

static int check_member(struct writing *k, const struct mr_member *m, struct mr_str id, const char *field)
{
  if (m->missing || m->no_version)
    return bad(k, field, "no agent " MR_FMT "%s", MR_ARG(mr_str_n(id.p, mr_utf8_cut(id, 80))),
               m->missing ? "" : " of this version");
  if (m->archived) return bad(k, field, "agent " MR_FMT " is archived", MR_ARG(id));
  if (m->nested)
    return bad(k, field, "agent " MR_FMT " has multiagent itself: agents delegate one level deep", MR_ARG(id));
  if (mr_str_is(m->name, MR_ADVISOR_NAME))
    return bad(k, field, "agent " MR_FMT " has the reserved name " MR_ADVISOR_NAME, MR_ARG(id));
  return MR_OK;
}

static int check_geo(struct writing *k, const struct mr_member *m, const char *field)
{
  if (!m || mr_str_eq(m->geo, k->who->geo)) return MR_OK;
  return bad(k, field, "inference_geo is \"" MR_FMT "\" there and \"" MR_FMT "\" here: pins must be the same",
             MR_ARG(m->geo), MR_ARG(k->who->geo));
}

static int write_agent(struct writing *k, struct mr_str id, int64_t version, const char *field)
{
  for (int i = 0; i < k->nseen; i++)
    if (mr_str_eq(k->seen[i], id)) return bad(k, field, "this agent is in the list twice");
  k->seen[k->nseen++] = id;
  mr_jw_obj(k->w);
  mr_jw_kc(k->w, "type", "agent");
  mr_jw_kstr(k->w, "id", id);
  mr_jw_kint(k->w, "version", version);
  mr_jw_obj_end(k->w);
  return MR_OK;
}

static int write_reference(struct writing *k, yyjson_val *v, const char *field)
{
  struct mr_str id = yyjson_is_str(v) ? mr_json_str(v) : mr_json_get_str(v, "id");
  yyjson_val *version = mr_json_get(v, "version");
  int64_t asked = mr_json_get_int(v, "version", 0);
  const struct mr_member *m = mr_member_find(k->m, id, asked);
  int code = MR_OK;

  if (!id.n || id.n > MR_ROSTER_ID_MAX ||
      (version && !yyjson_is_null(version) && (!yyjson_is_int(version) || asked < 1)))
    return bad(k, field, "an agent id, or {\"type\":\"agent\",\"id\",\"version\"?} with a version from 1 on");
  if (k->m && !m) /* somebody else changed the roster since it was read */
    return mr_err_set(&k->c->err, MR_E_UNAVAILABLE, field, "%s: changed at the same time, try again", field);
  if (m && !k->kept) code = check_member(k, m, id, field);
  if (code == MR_OK) code = check_geo(k, m, field);
  return code == MR_OK ? write_agent(k, id, k->kept ? asked : m->version, field) : code;
}

static int write_entry(struct writing *k, yyjson_val *v, bool advisor, const char *field)
{
  struct mr_str type = mr_json_get_str(v, "type"), model = mr_json_get_str(v, "model");

  if (is_self(k, v)) return write_agent(k, k->who->id, k->who->version, field);
  if (advisor && mr_str_is(type, "advisor")) {
    if (k->advisor.n) return bad(k, field, "only one advisor");
    if (!model.n || model.n > 256) return bad(k, field, "an advisor needs a model, of at most 256 characters");
    k->advisor = model;
    return MR_OK;
  }
  if (!yyjson_is_str(v) && !mr_str_is(type, "agent"))
    return bad(k, field, "an agent id, or an object with type agent, self%s", advisor ? " or advisor" : "");
  return write_reference(k, v, field);
}

static int write_list(struct writing *k, yyjson_val *list, bool advisor, const char *field)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;
  char at[120];
  int code = MR_OK, i = 0;

  k->nseen = 0;
  mr_jw_arr(k->w);
  while (code == MR_OK && list && (v = yyjson_arr_iter_next(&it))) {
    snprintf(at, sizeof at, "%s[%d]", field, i++);
    code = write_entry(k, v, advisor, at);
  }
  if (k->advisor.n) {
    mr_jw_obj(k->w);
    mr_jw_kc(k->w, "type", "advisor");
    mr_jw_kstr(k->w, "model", k->advisor);
    mr_jw_obj_end(k->w);
  }
  mr_jw_arr_end(k->w);
  return code;
}

/* ---- the two forms ---- */

static int write_coordinator(struct writing *k, yyjson_val *form)
{
  yyjson_val *agents = mr_json_get(form, "agents");
  int code;

  if (!yyjson_is_arr(agents) || yyjson_arr_size(agents) < 1 || yyjson_arr_size(agents) > MR_ROSTER_MAX)
    return bad(k, "multiagent.agents", "an array of 1 to %d agents", MR_ROSTER_MAX);
  mr_jw_obj(k->w);
  mr_jw_kc(k->w, "type", "coordinator");
  mr_jw_key(k->w, "agents");
  code = write_list(k, agents, true, "multiagent.agents");
  mr_jw_obj_end(k->w);
  return code;
}

static bool is_on(yyjson_val *part)
{
  return mr_str_is(mr_json_get_str(part, "type"), "enabled");
}

/* A member that is {"type":"enabled"} or disabled: as given, else as stored, else on or off. null is as if
 * nothing were stored. */
static int read_switch(struct writing *k, yyjson_val *given, yyjson_val *old, bool dflt, const char *field,
                       bool *on)
{
  struct mr_str type = mr_json_get_str(given, "type");

  if (!given) {
    *on = old ? is_on(old) : dflt;
  } else if (yyjson_is_null(given)) {
    *on = dflt;
  } else {
    *on = is_on(given);
    if (!*on && !mr_str_is(type, "disabled"))
      return bad(k, field, "an object with type \"enabled\" or \"disabled\"");
  }
  return MR_OK;
}

static void write_switch(struct writing *k, const char *key, bool on)
{
  mr_jw_kraw(k->w, key, on ? MR_S("{\"type\":\"enabled\"}") : MR_S("{\"type\":\"disabled\"}"));
}

static int write_advisor(struct writing *k, yyjson_val *given, yyjson_val *old)
{
  yyjson_val *model = mr_json_get(given, "model");
  bool on;
  int code = read_switch(k, given, old, false, "multiagent.advisor", &on);

  if (code != MR_OK) return code;
  if (!on) {
    write_switch(k, "advisor", false);
    return MR_OK;
  }
  if (!model && is_on(old)) model = mr_json_get(old, "model");
  if (!yyjson_is_str(model) || !yyjson_get_len(model) || yyjson_get_len(model) > 256)
    return bad(k, "multiagent.advisor.model", "an enabled advisor needs a model, of at most 256 characters");
  mr_jw_key(k->w, "advisor");
  mr_jw_obj(k->w);
  mr_jw_kc(k->w, "type", "enabled");
  mr_jw_kstr(k->w, "model", mr_json_str(model));
  mr_jw_obj_end(k->w);
  return MR_OK;
}

/* "subagents" and "workflows". */
static int write_delegation(struct writing *k, const char *key, yyjson_val *given, yyjson_val *old)
{
  yyjson_val *list = mr_json_get(given, "predefined_agents"), *stored;
  char field[64], sub[96];
  bool on, described;
  int code;

  snprintf(field, sizeof field, "multiagent.%s", key);
  code = read_switch(k, given, old, true, field, &on);
  if (code != MR_OK) return code;
  if (!on) {
    write_switch(k, key, false);
    return MR_OK;
  }
  stored = is_on(old) && !yyjson_is_null(given) ? old : NULL;
  snprintf(sub, sizeof sub, "%s.inline_agents", field);
  code = read_switch(k, mr_json_get(given, "inline_agents"), mr_json_get(stored, "inline_agents"), true, sub,
                     &described);
  if (code != MR_OK) return code;
  snprintf(sub, sizeof sub, "%s.predefined_agents", field);
  k->kept = !list;
  if (!list) list = mr_json_get(stored, "predefined_agents");
  if (yyjson_is_null(list)) list = NULL;
  if (list && (!yyjson_is_arr(list) || yyjson_arr_size(list) > MR_ROSTER_MAX))
    return bad(k, sub, "an array of at most %d agents", MR_ROSTER_MAX);
  if (!described && !yyjson_arr_size(list))
    return bad(k, sub, "must name an agent when inline_agents is disabled");
  mr_jw_key(k->w, key);
  mr_jw_obj(k->w);
  mr_jw_kc(k->w, "type", "enabled");
  write_switch(k, "inline_agents", described);
  mr_jw_key(k->w, "predefined_agents");
  code = write_list(k, list, false, sub);
  mr_jw_obj_end(k->w);
  return code;
}

static int write_parts(struct writing *k, yyjson_val *given, yyjson_val *old)
{
  int code;

  if (!mr_str_is(mr_json_get_str(old, "type"), "multiagent_20261001")) old = NULL;
  mr_jw_obj(k->w);
  mr_jw_kc(k->w, "type", "multiagent_20261001");
  code = write_advisor(k, mr_json_get(given, "advisor"), mr_json_get(old, "advisor"));
  if (code == MR_OK)
    code = write_delegation(k, "subagents", mr_json_get(given, "subagents"), mr_json_get(old, "subagents"));
  if (code == MR_OK)
    code = write_delegation(k, "workflows", mr_json_get(given, "workflows"), mr_json_get(old, "workflows"));
  mr_jw_obj_end(k->w);
  return code;
}

int mr_roster_write(struct mr_call *c, const struct mr_members *m, const struct mr_roster_owner *who,
                    yyjson_val *given, yyjson_val *old, struct mr_buf *out)
{
  struct mr_str type = mr_json_get_str(given ? given : old, "type");
  struct mr_jw w;
  struct writing k = {.c = c, .m = m, .who = who, .w = &w, .kept = !given};

  mr_jw_init(&w, out);
  if (yyjson_is_null(given) || (!given && !yyjson_is_obj(old))) {
    mr_jw_null(&w);
    return MR_OK;
  }
  if (mr_str_is(type, "coordinator")) return write_coordinator(&k, given ? given : old);
  if (mr_str_is(type, "multiagent_20261001")) return write_parts(&k, given, old);
  return bad(&k, "multiagent.type", "coordinator or multiagent_20261001");
}

/* ---- comparing ---- */

bool mr_roster_same(yyjson_val *a, yyjson_val *b, struct mr_str self)
{
  yyjson_val *k, *x, *y;

  if (yyjson_is_obj(a) && yyjson_is_obj(b)) {
    yyjson_obj_iter it = yyjson_obj_iter_with(a);
    if (mr_str_eq(mr_json_get_str(a, "id"), self) && mr_str_eq(mr_json_get_str(b, "id"), self)) return true;
    if (yyjson_obj_size(a) != yyjson_obj_size(b)) return false;
    while ((k = yyjson_obj_iter_next(&it)))
      if (!mr_roster_same(yyjson_obj_iter_get_val(k), mr_json_get(b, yyjson_get_str(k)), self)) return false;
    return true;
  }
  if (yyjson_is_arr(a) && yyjson_is_arr(b)) {
    yyjson_arr_iter ia = yyjson_arr_iter_with(a), ib = yyjson_arr_iter_with(b);
    if (yyjson_arr_size(a) != yyjson_arr_size(b)) return false;
    while ((x = yyjson_arr_iter_next(&ia)) && (y = yyjson_arr_iter_next(&ib)))
      if (!mr_roster_same(x, y, self)) return false;
    return true;
  }
  return a && b ? mr_json_equal(a, b) : a == b;
}

/* ---- a session's ---- */

static int expand(struct writing *k, yyjson_val *v, struct mr_str alone)
{
  yyjson_obj_iter members;
  yyjson_arr_iter items;
  yyjson_val *key, *item;
  int code = MR_OK;

  if (mr_str_is(mr_json_get_str(v, "type"), "agent")) {
    struct mr_str id = mr_json_get_str(v, "id");
    const struct mr_member *m = mr_member_find(k->m, id, mr_json_get_int(v, "version", 0));
    if (mr_str_eq(id, k->who->id)) {
      mr_jw_raw(k->w, alone);
    } else if (m && m->definition.n) {
      code = check_geo(k, m, "agent.multiagent");
      mr_jw_raw(k->w, m->definition);
    } else if (k->m) {
      return mr_err_set(&k->c->err, MR_E_STATE, "agent",
                        "agent: its roster names agent " MR_FMT ", which is not there", MR_ARG(id));
    } else {
      mr_jw_val(k->w, v);
    }
  } else if (yyjson_is_obj(v)) {
    members = yyjson_obj_iter_with(v);
    mr_jw_obj(k->w);
    while (code == MR_OK && (key = yyjson_obj_iter_next(&members))) {
      mr_jw_key_s(k->w, mr_json_str(key));
      code = expand(k, yyjson_obj_iter_get_val(key), alone);
    }
    mr_jw_obj_end(k->w);
  } else if (yyjson_is_arr(v)) {
    items = yyjson_arr_iter_with(v);
    mr_jw_arr(k->w);
    while (code == MR_OK && (item = yyjson_arr_iter_next(&items)))
      code = expand(k, item, alone);
    mr_jw_arr_end(k->w);
  } else {
    mr_jw_val(k->w, v);
  }
  return code;
}

int mr_roster_expand(struct mr_call *c, const struct mr_members *m, yyjson_val *multiagent,
                     const struct mr_roster_owner *who, struct mr_str alone, struct mr_buf *out)
{
  struct mr_jw w;
  struct writing k = {.c = c, .m = m, .who = who, .w = &w};

  mr_jw_init(&w, out);
  return expand(&k, multiagent, alone);
}
