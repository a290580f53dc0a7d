/*
 * model - asking a language model, behind a provider vtable. Requests and replies are in one canonical
 * form, that of the Messages API (content blocks, tool_use, tool_result, thinking); providers translate.
 * Providers: anthropic (Messages, streaming), openai (chat completions, streaming), scripted (a recorded
 * file), and those that a host adds. Loop thread; callbacks from the drain, never inside the call.
 */
#ifndef MR_MODEL_MODEL_H
#define MR_MODEL_MODEL_H

#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "loop/loop.h"
#include "net/http_client.h"

struct mr_models;     /* the router: which provider serves which model name */
struct mr_model_call; /* one request in flight; the provider's until done was called */

/* JSON fragments, and the arrays of them, are borrowed until done. They are sent in this order, byte for byte, so that
 * a long session's prefix never changes and the provider's prompt cache keeps hitting. */
struct mr_model_req {
  struct mr_str model;           /* model id as the agent names it */
  struct mr_str effort;          /* "" or low medium high xhigh max */
  struct mr_str speed;           /* "" or "fast" */
  struct mr_str system;          /* JSON: array of text blocks, or empty */
  struct mr_str tools;           /* JSON: array of {name, description, input_schema}, or empty */
  const struct mr_str *messages; /* JSON objects {"role":..,"content":[..]}, one per fragment */
  int nmessages;
  const struct mr_str *pieces; /* the same as fewer texts, joined by commas; NULL: not known */
  int npieces;
  /* Nothing has to be looked for: no message is one that mr_model_foreign knows, and neither system nor tools have
   * cache_control. false: not known. */
  bool plain;
  int max_tokens;      /* 0 = the model's default here (32,000) */
  struct mr_str extra; /* JSON object: what else a request of the Messages API says (tool_choice,
                                           temperature, stop_sequences ...), as far as a provider can use it; or empty */
  struct mr_str session_id, request_id; /* for logs and for host providers */
};

enum mr_model_status {
  MR_MODEL_OK = 0,
  MR_MODEL_OVERLOADED,      /* transient: model_overloaded_error */
  MR_MODEL_RATE_LIMITED,    /* transient: model_rate_limited_error */
  MR_MODEL_FAILED,          /* transient: model_request_failed_error (5xx, network, cut stream, stall) */
  MR_MODEL_BILLING,         /* billing_error: retrying is useless */
  MR_MODEL_REFUSED_REQUEST, /* 400, 401, 404 ...: retrying is useless; model_request_failed_error */
  MR_MODEL_CANCELLED
};

struct mr_usage {
  int64_t input, output, cache_read, cache_write_5m, cache_write_1h;
  int64_t searches; /* of web_search; a session's count, not a reply's */
};

struct mr_model_reply {
  enum mr_model_status status;
  struct mr_str content;      /* JSON array of content blocks, raw: thinking with signatures, text,
                                   tool_use {id,name,input}; as to be sent back later */
  struct mr_str stop_reason;  /* end_turn tool_use max_tokens refusal pause_turn ... */
  struct mr_str stop_details; /* JSON object for refusals, or empty */
  struct mr_usage usage;      /* what is known, also of a failed request */
  int64_t retry_after_ms;     /* 0 = not said */
  struct mr_str message;      /* on failure: safe to show and to log; never holds a key */
  struct mr_str provider;     /* who gave it, or failed last; "" when none was asked */
  struct mr_str model;        /* its id there */
};

/* An input that the model did not write as a JSON object arrives as {"INVALID_JSON": "<what it wrote>"}: it can be
 * kept and sent back like any other, and the call is to be answered with an error, not run. */
#define MR_MODEL_BAD_INPUT "INVALID_JSON"
bool mr_model_input_bad(yyjson_val *input);
/* Has the content of a reply thinking that only servers of chat completions understand? */
bool mr_model_foreign(yyjson_val *content);

struct mr_model_cbs {
  /* A new content block begins: kind "text", "thinking", "tool_use", or another block's type. index is
   * its place in the reply's content; -1 for thinking that is not kept (openai). A text block without any
   * visible character is neither announced nor kept. */
  void (*block)(void *ud, int index, struct mr_str kind);
  void (*text)(void *ud, int index, struct mr_str delta); /* of a text block */
  void (*done)(void *ud, const struct mr_model_reply *r); /* once, last; strings borrowed */
};

struct mr_provider_vtable {
  const char *name;
  int (*start)(void *self, const struct mr_model_req *req, const struct mr_model_cbs *cbs, void *ud,
               struct mr_model_call **out, struct mr_err *err);
  void (*cancel)(void *self, struct mr_model_call *c); /* done still comes, MR_MODEL_CANCELLED */
  /* Once, when no call runs: at remove or end, or from inside the done of the last call, after which a
   * provider may touch that call but no longer self. */
  void (*free)(void *self);
};
/* Providers put this first in their struct mr_model_call. */
struct mr_model_call {
  const struct mr_provider_vtable *v;
  void *self;
};

/* config: the JSON object "models" of the configuration (NULL = defaults):
 * {"anthropic": {"base_url":.., "api_key":.., "ca_file":..}, "openai": {..}, "scripted": {"file":..},
 *  "<name>": {"kind":"openai", "base_url":..},
 *  "route": {"<id or prefix*>": "<provider>[:<model id there>]" or an array of those},
 *  "fallback": {"<id or prefix*>": the same}}.
 * A route's first provider is asked, the others of it and those of "fallback" stand in when a request fails before any
 * output was given out (overloaded, limited, failed, no connection). Each provider has limits (max_concurrency,
 * requests_per_minute, tokens_per_minute; queue_max 1,000 wait, queue_ms 600,000 at most), patience (connect_ms
 * 10,000, first_ms 600,000 to the first word, stall_ms 120,000 without a byte after it, total_ms 7,200,000), and
 * anthropic prompt_cache (true) and prompt_cache_ttl ("5m" or "1h"). A 429 with retry-after pauses its provider: what
 * has no other candidate waits in line. Keys not in config come from api_key_anthropic etc. below. */
int mr_models_config_check(yyjson_val *models, struct mr_err *err); /* MR_E_INVALID names the key */
struct mr_models_opts {
  const struct mr_sys *sys;
  struct mr_loop *loop;
  struct mr_http_client *http;
  struct mr_str config;
  const char *anthropic_key, *anthropic_base_url; /* from the environment, by the program; or NULL */
  const char *openai_key, *openai_base_url;
  const char *ca_file;
};
int mr_models_new(struct mr_models **out, const struct mr_models_opts *o, struct mr_err *err);
void mr_models_free(struct mr_models **m);
/* A provider of the host; models: comma list of ids or prefixes with *. Looked at before configured
 * routes, newest first. Takes self (free is called at remove or end). Same name: replaced. */
int mr_models_add(struct mr_models *m, const struct mr_provider_vtable *v, void *self, const char *models,
                  struct mr_err *err);
int mr_models_remove(struct mr_models *m, const char *name);
/* Is this model served here? MR_OK, or MR_E_INVALID with a message that says what to configure. */
int mr_models_check(struct mr_models *m, struct mr_str model, struct mr_err *err);
int mr_models_start(struct mr_models *m, const struct mr_model_req *req, const struct mr_model_cbs *cbs,
                    void *ud, struct mr_model_call **out, struct mr_err *err);
void mr_models_cancel(struct mr_model_call *c);
/* Model ids that are routed here (exact ones), for /v1/models: the i-th, or p NULL. */
struct mr_str mr_models_at(struct mr_models *m, int i);
/* For operators: the i-th configured provider; false past the end. */
struct mr_provider_stats {
  const char *name;
  int running, waiting; /* requests inside, and in line */
  int64_t paused_ms;    /* what is left of a pause that its service asked for */
};
bool mr_models_stats(const struct mr_models *m, int i, struct mr_provider_stats *out);
uint64_t
mr_models_fallbacks(const struct mr_models *m); /* requests that went on to another candidate, so far */

#endif
