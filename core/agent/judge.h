/*
 * judge - the judge behind the permission policy "auto" (API: sessions §10): rules, no model. It looks at one
 * tool call and says allow, ask or deny.
 *
 * Its one promise: allow is said only of what these rules understand whole and know to change nothing but the
 * session's own working files (/workspace, /mnt/session/outputs); deny only of what destroys or breaks out
 * whatever it was for; everything else, above all what it cannot parse, is asked about. Hooks of "permit"
 * come before it: a deployment that wants a cleverer judge writes one there.
 *
 * Nothing that a tool, a web page or another thread said ever counts as intent; only user.message texts of
 * the primary thread do, and these rules use not even them (they may not widen what is allowed). Pure; any
 * thread.
 */
#ifndef MR_AGENT_JUDGE_H
#define MR_AGENT_JUDGE_H

#include "base/json.h"

enum mr_verdict { MR_JUDGE_ALLOW, MR_JUDGE_ASK, MR_JUDGE_DENY };

struct mr_case {
  struct mr_str tool;   /* as the model names it */
  bool mcp;             /* a server's tool: nothing is known of it */
  yyjson_val *input;    /* NULL or not an object: asked about */
  struct mr_str intent; /* the last user.message text of the primary thread; may be empty */
};
struct mr_judgement {
  enum mr_verdict verdict;
  const char *reason_code; /* "indeterminate", "high_risk"; NULL with allow */
  const char *why;         /* for people and logs; static text, names nothing of the call */
};
struct mr_judgement mr_judge(const struct mr_case *c);
/* The member "evaluation" of the event:
 * {"type":"auto","evaluated_permission":{"type":"ask","reason_code":"indeterminate"}}. */
void mr_judgement_write(struct mr_jw *w, const struct mr_judgement *j);

/* What it says of a shell command alone. */
struct mr_judgement mr_judge_command(struct mr_str command);

#endif
