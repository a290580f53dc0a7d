/*
 * loop_post - posts of other threads always run, whatever the drain's budget leaves over.
 */
#include <pthread.h>
#include <stdatomic.h>
#include "kit.h"
#include "loop/loop.h"

enum { BURST = 600 }; /* more than a pass takes */

static struct mr_loop *loop;
static struct mr_post posts[BURST], extra;
static int ran;
static pthread_barrier_t step;

static void on_extra(struct mr_post *p)
{
  (void)p;
  CHECK_INT(ran, BURST);
  mr_loop_stop(loop);
}

static void on_burst(struct mr_post *p)
{
  (void)p;
  if (++ran == 10) mr_loop_post(loop, &extra); /* its wake-up is read while this burst is left over */
}

TEST(a_post_during_a_burst_runs)
{
  CHECK_INT(mr_loop_new(&loop, test_sys(), NULL, NULL), MR_OK);
  extra.fn = on_extra;
  for (int i = 0; i < BURST; i++) {
    posts[i].fn = on_burst;
    CHECK_INT(mr_loop_post(loop, &posts[i]), MR_OK);
  }
  CHECK_INT(mr_loop_run(loop), MR_OK); /* the test's time limit ends it when the post is lost */
  mr_loop_free(&loop);
}

/* Two threads that post one after the other, as fast as they can. */
enum { EACH = 20000 };
static struct mr_post many[2][EACH];
static atomic_int total;

static void on_one(struct mr_post *p)
{
  (void)p;
  if (atomic_fetch_add(&total, 1) + 1 == 2 * EACH) mr_loop_stop(loop);
}

static void *poster(void *arg)
{
  struct mr_post *mine = arg;
  pthread_barrier_wait(&step);
  for (int i = 0; i < EACH; i++) {
    mine[i].fn = on_one;
    mr_loop_post(loop, &mine[i]);
  }
  return NULL;
}

TEST(posts_of_two_threads_all_run)
{
  pthread_t t[2];
  CHECK_INT(mr_loop_new(&loop, test_sys(), NULL, NULL), MR_OK);
  pthread_barrier_init(&step, NULL, 2);
  for (int i = 0; i < 2; i++) CHECK_INT(pthread_create(&t[i], NULL, poster, many[i]), 0);
  CHECK_INT(mr_loop_run(loop), MR_OK);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  CHECK_INT(atomic_load(&total), 2 * EACH);
  mr_loop_free(&loop);
}
