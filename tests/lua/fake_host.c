/*
 * fake_host - a small stand-in for the runtime, for tests of core/script alone: both public headers over
 * one queue, a clock that jumps, real files, and no domain. Lua tests steer it through `require "host"`:
 * they answer operations, inject tool uses, hook calls and model requests, complete things late, and ask
 * what is still open.
 *
 * One thread, except ext->post. Test code: it has writable statics and uses malloc.
 */
#include <pthread.h>
#include "fake_host_t.h"

struct fake fake = {.now_us = 1000000, .wall0 = 1700000000000000, .next_id = 1};

/* ------------------------------------------------------------------- queue */

struct entry { struct entry *next; void (*fn)(void *a, void *b); void *a, *b; };
static struct entry *head, *tail;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int in_dispatch;

void fake_push(void (*fn)(void *, void *), void *a, void *b)
{
  struct entry *e = calloc(1, sizeof *e);
  e->fn = fn, e->a = a, e->b = b;
  pthread_mutex_lock(&lock);
  if (tail) tail->next = e; else head = e;
  tail = e;
  pthread_mutex_unlock(&lock);
}

static struct entry *pop(void)
{
  pthread_mutex_lock(&lock);
  struct entry *e = head;
  if (e) head = e->next;
  if (!head) tail = NULL;
  pthread_mutex_unlock(&lock);
  return e;
}

int fake_queued(void) { return head != NULL; }

int fake_fail(struct mr_err *err, int code, const char *msg)
{
  if (err) {
    memset(err, 0, sizeof *err);
    err->size = sizeof *err;
    err->code = code;
    snprintf(err->message, sizeof err->message, "%s", msg);
  }
  return code;
}

/* Time jumps to the next timer when nothing else is to do. */
static void run_timer(void *a, void *b)
{
  struct fake_timer *t = a;
  (void)b;
  t->fn(t->ud);
  free(t);
}
static int fire_next(int64_t limit)
{
  struct fake_timer **best = NULL;
  for (struct fake_timer **t = &fake.timers; *t; t = &(*t)->next)
    if (!best || (*t)->at < (*best)->at) best = t;
  if (!best || (*best)->at > limit) return 0;
  struct fake_timer *t = *best;
  *best = t->next;
  if (t->at > fake.now_us) fake.now_us = t->at;
  fake_push(run_timer, t, NULL);
  return 1;
}

int mr_dispatch(struct mr_runtime *rt, int max, int64_t budget_us)
{
  (void)rt, (void)budget_us;
  if (in_dispatch) return MR_E_REENTRANT;
  in_dispatch = 1;
  fake.now_us += 10;
  while (fire_next(fake.now_us)) continue;
  int n = 0;
  struct entry *e, *stop = tail;
  while ((!max || n++ < max) && (e = pop()) != NULL) {
    int last = e == stop;
    e->fn(e->a, e->b);
    free(e);
    if (last) break;
  }
  in_dispatch = 0;
  return head ? MR_MORE : MR_OK;
}

int mr_wait(struct mr_runtime *rt, int timeout_ms)
{
  (void)rt;
  if (head) return MR_OK;
  if (fire_next(timeout_ms < 0 ? INT64_MAX : fake.now_us + timeout_ms * 1000LL)) return MR_OK;
  if (timeout_ms >= 0) {
    fake.now_us += timeout_ms * 1000LL;
    return MR_E_TIMEOUT;
  }
  for (int i = 0; i < 3000 && !head; i++) usleep(1000);
  if (head) return MR_OK;
  printf("not ok deadlock: nothing waits and nothing will\n");
  fflush(stdout);
  _exit(9);
}

/* ---------------------------------------------- a second runtime: rig.new opens one, on a thread of its own */

void mr_config_init(struct mr_config *c)
{
  memset(c, 0, sizeof *c);
  c->size = sizeof *c;
}
int mr_open(struct mr_runtime **out, const struct mr_config *c, struct mr_err *err)
{
  if (strcmp(c->store, "busy") == 0) return fake_fail(err, MR_E_BUSY, "another process holds it");
  c->log(c->ud, MR_LOG_INFO, (struct mr_str){c->options, strlen(c->options)});
  *out = calloc(1, 1);
  fake.second++;
  return MR_OK;
}
int mr_listen(struct mr_runtime *rt, const char *spec, char *actual, size_t n, struct mr_err *err)
{
  (void)rt, (void)err;
  snprintf(actual, n, "%s", spec);
  return MR_OK;
}
int mr_stop(struct mr_runtime *rt, unsigned grace_ms) { (void)rt, (void)grace_ms; return MR_OK; }
int mr_close(struct mr_runtime **rt)
{
  free(*rt);
  *rt = NULL;
  fake.second--;
  return MR_OK;
}

int mr_fd(const struct mr_runtime *rt) { (void)rt; return -1; }


/* ------------------------------------------------------------------- faces */

static struct mr_ext table;

__attribute__((constructor)) static void fill_table(void)
{
  table.size = sizeof table;
  fake_json_table(&table);
  fake_ops_table(&table);
  fake_uses_table(&table);
  fake_ext_table(&table);
}
const struct mr_ext *mr_ext(void) { return &table; }
const char *mr_strerror(int code)
{
  return code == MR_E_FULL ? "the queue is full" : code == MR_E_CANCELLED ? "cancelled"
       : code == MR_E_CLOSED ? "closed" : "failed";
}
