/*
 * egress.c - the section "egress" of the options: what the operator says about the network of sandboxes, on top of
 * what each environment's networking says (sandbox/egress). The lists are read here, entry by entry, and a wrong one
 * is refused by its place: egress.ports.1.
 */
#include "host/host_t.h"

#include <stdio.h>
#include <stdlib.h>

enum { PORTS_MAX = 64, HOSTS_MAX = 1000, SECRETS = 20, SECRET_HOSTS = 16, SECRET_MAX = 4096 };

static yyjson_val *list(yyjson_val *options, const char *key)
{
  return mr_json_get(mr_json_get(options, "egress"), key);
}

/* An empty table of Lua is an object. */
static bool is_list(yyjson_val *l)
{
  return yyjson_is_arr(l) || (yyjson_is_obj(l) && yyjson_obj_size(l) == 0);
}

static int not_list(const char *key, struct mr_err *err)
{
  char field[64];

  snprintf(field, sizeof field, "egress.%s", key);
  return mr_err_set(err, MR_E_INVALID, field, "%s: must be a list", field);
}

/* 8443, or "8000-8100". */
static bool port_range(yyjson_val *v, int out[2])
{
  struct mr_str s = mr_json_str(v), first = mr_str_split(&s, '-');
  int64_t a = yyjson_is_int(v) ? yyjson_get_sint(v) : 0, b = a;

  if (first.p && (mr_str_int(first, &a) != MR_OK || (s.p && mr_str_int(s, &b) != MR_OK))) return false;
  if (first.p && !s.p) b = a;
  out[0] = (int)a;
  out[1] = (int)b;
  return a >= 1 && a <= b && b <= 65535;
}

static int ports(yyjson_val *options, struct mr_egress_options *o, struct mr_arena *a, struct mr_err *err)
{
  yyjson_val *l = list(options, "ports"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(l);
  int(*out)[2] = mr_arena_alloc(a, PORTS_MAX * sizeof *out);
  char field[64];

  if (!out) return mr_err_nomem(err);
  o->ports = (const int(*)[2])out;
  if (!l || yyjson_is_null(l)) return MR_OK;
  if (!is_list(l)) return not_list("ports", err);
  while (yyjson_is_arr(l) && (v = yyjson_arr_iter_next(&it))) {
    snprintf(field, sizeof field, "egress.ports.%d", o->nports);
    if (o->nports == PORTS_MAX || !port_range(v, out[o->nports]))
      return mr_err_set(err, MR_E_INVALID, field,
                        "%s: a port or a range such as \"8000-8100\", at most %d of them", field,
                        (int)PORTS_MAX);
    o->nports++;
  }
  return MR_OK;
}

/* A host's name, or "*.example.com". */
static bool host_ok(struct mr_str h)
{
  if (mr_str_starts(h, MR_S("*."))) h.p += 2, h.n -= 2;
  for (size_t i = 0; i < h.n; i++) {
    char c = h.p[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || memchr("-._:", c, 4)))
      return false;
  }
  return h.n > 0 && h.n <= 253 && h.p[0] != '.';
}

static int hosts(yyjson_val *options, const char *key, const struct mr_str **out, int *n, struct mr_arena *a,
                 struct mr_err *err)
{
  yyjson_val *l = list(options, key), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(l);
  struct mr_str *to;
  char field[64];

  if (!l || yyjson_is_null(l)) return MR_OK;
  if (!is_list(l)) return not_list(key, err);
  *out = to = mr_arena_alloc(a, (yyjson_arr_size(l) + 1) * sizeof *to);
  if (!to) return mr_err_nomem(err);
  while (yyjson_is_arr(l) && (v = yyjson_arr_iter_next(&it))) {
    snprintf(field, sizeof field, "egress.%s.%d", key, *n);
    if (*n == HOSTS_MAX || !host_ok(mr_json_str(v)))
      return mr_err_set(err, MR_E_INVALID, field, "%s: a host such as example.com or *.example.com", field);
    to[(*n)++] = mr_json_str(v);
  }
  return MR_OK;
}

/* ---- credentials ---- */

static bool env_ok(struct mr_str name)
{
  /* Names that programs are steered by are not for secrets. */
  static const char *const taken[] = {"PATH", "HOME", "SHELL", "LANG",
                                      "TERM", "PS1",  "PS2",   "NODE_USE_ENV_PROXY"};
  static const char *const kinds[] = {"_proxy", "_PROXY", "CERT_FILE", "CA_BUNDLE", "CAINFO"};

  if (!name.n || name.n > 64 || (name.p[0] >= '0' && name.p[0] <= '9') || mr_str_starts(name, MR_S("LD_")))
    return false;
  for (size_t i = 0; i < name.n; i++) {
    char c = name.p[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_')) return false;
  }
  for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
    if (mr_str_is(name, taken[i])) return false;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (mr_str_ends(name, mr_str_c(kinds[i]))) return false;
  return true;
}

/* The secret itself: of a variable of this program, or the first line of a file. What it is never stands in an error. */
static const char *secret_value(yyjson_val *v, struct mr_arena *a, char text[SECRET_MAX + 2])
{
  const char *env = yyjson_get_str(mr_json_get(v, "value_env")),
             *file = yyjson_get_str(mr_json_get(v, "value_file"));
  struct mr_str value = {0};
  FILE *f;

  if ((env != NULL) == (file != NULL)) return NULL;
  if (env) {
    value = mr_str_c(getenv(env));
  } else if ((f = fopen(file, "re"))) {
    value = mr_str_n(text, fread(text, 1, SECRET_MAX + 1, f));
    fclose(f);
  }
  while (value.n && (value.p[value.n - 1] == '\n' || value.p[value.n - 1] == '\r'))
    value.n--;
  if (!value.n || value.n > SECRET_MAX) return NULL;
  for (size_t i = 0; i < value.n; i++)
    if ((unsigned char)value.p[i] < ' ' || value.p[i] == 0x7f) return NULL;
  return mr_arena_str(a, value).p;
}

static int credential(yyjson_val *v, int at, struct mr_sandbox_secret *out, struct mr_arena *a,
                      struct mr_err *err)
{
  yyjson_val *list_ = mr_json_get(v, "hosts"), *h;
  yyjson_arr_iter it = yyjson_arr_iter_with(list_);
  char field[64], text[SECRET_MAX + 2];
  const char **hosts_;

  snprintf(field, sizeof field, "egress.credentials.%d", at);
  if (!env_ok(mr_json_get_str(v, "env")))
    return mr_err_set(err, MR_E_INVALID, field, "%s.env: the name of a variable for the secret", field);
  hosts_ = mr_arena_alloc(a, (yyjson_arr_size(list_) + 1) * sizeof *hosts_);
  if (!hosts_) return mr_err_nomem(err);
  *out = (struct mr_sandbox_secret){.env = yyjson_get_str(mr_json_get(v, "env")), .hosts = hosts_};
  while (yyjson_is_arr(list_) && (h = yyjson_arr_iter_next(&it))) {
    if (out->nhosts == SECRET_HOSTS || !host_ok(mr_json_str(h))) {
      out->nhosts = 0;
      break;
    }
    hosts_[out->nhosts++] = yyjson_get_str(h);
  }
  if (!out->nhosts)
    return mr_err_set(err, MR_E_INVALID, field,
                      "%s.hosts: 1 to %d hosts such as api.example.com or *.example.com", field,
                      (int)SECRET_HOSTS);
  out->value = secret_value(v, a, text);
  if (!out->value)
    return mr_err_set(
        err, MR_E_INVALID, field,
        "%s: either value_env or value_file, naming where a secret of one line is, at most %d bytes", field,
        (int)SECRET_MAX);
  return MR_OK;
}

static int credentials(yyjson_val *options, struct mr_egress_options *o, struct mr_arena *a, struct mr_err *err)
{
  yyjson_val *l = list(options, "credentials"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(l);
  struct mr_sandbox_secret *to;
  int code = MR_OK;

  if (!l || yyjson_is_null(l)) return MR_OK;
  if (!is_list(l)) return not_list("credentials", err);
  if (yyjson_arr_size(l) > SECRETS)
    return mr_err_set(err, MR_E_INVALID, "egress.credentials", "egress.credentials: at most %d", (int)SECRETS);
  o->secrets = to = mr_arena_alloc(a, (SECRETS + 1) * sizeof *to);
  if (!to) return mr_err_nomem(err);
  while (code == MR_OK && yyjson_is_arr(l) && (v = yyjson_arr_iter_next(&it))) {
    code = credential(v, o->nsecrets, &to[o->nsecrets], a, err);
    if (code == MR_OK) o->nsecrets++;
  }
  return code;
}

int mr_options_egress(yyjson_val *options, struct mr_egress_options *o, struct mr_arena *a, struct mr_err *err)
{
  int code;

  *o = (struct mr_egress_options){.own = NULL};
  code = ports(options, o, a, err);
  if (code == MR_OK) code = hosts(options, "package_hosts", &o->package_hosts, &o->npackage_hosts, a, err);
  if (code == MR_OK) code = hosts(options, "blocked_hosts", &o->blocked_hosts, &o->nblocked_hosts, a, err);
  if (code == MR_OK) code = credentials(options, o, a, err);
  o->ca_file = yyjson_get_str(mr_json_get(mr_json_get(options, "http"), "ca_file"));
  return code;
}

/* The API is made after the sandboxes, and gone before them. */
static bool own(void *ud, const struct sockaddr *sa)
{
  struct mr_runtime *rt = ud;
  return rt->api && mr_api_answers(rt->api, sa);
}

int mr_rt_egress(struct mr_runtime *rt, struct mr_egress_options *o, struct mr_arena *a, struct mr_err *err)
{
  int code = mr_options_egress(yyjson_doc_get_root(rt->options), o, a, err);

  o->own = own;
  o->own_ud = rt;
  return code;
}
