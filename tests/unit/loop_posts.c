/* Posts: none is forgotten when more wait than one pass of the loop runs. */
#include "kit.h"
#include "base/err.h"
#include "loop/loop.h"

enum { MANY = 600 };

struct item { struct mr_post post; struct mr_loop *loop; struct item *next; int *ran; };

static void run(struct mr_post *p)
{
  struct item *i = MR_OF(p, struct item, post);
  ++*i->ran;
  if (i->next)
    CHECK_INT(mr_loop_post(i->loop, &i->next->post), MR_OK);
}

static void stop(struct mr_post *p)
{
  struct item *i = MR_OF(p, struct item, post);
  ++*i->ran;
  mr_loop_stop(i->loop);
}

TEST(a_post_that_comes_while_others_are_left_over)
{
  static struct item many[MANY], last;
  struct mr_loop *loop;
  int ran = 0;

  CHECK_INT(mr_loop_new(&loop, test_sys(), NULL, NULL), MR_OK);
  last = (struct item){.post.fn = stop, .loop = loop, .ran = &ran};
  for (int i = 0; i < MANY; i++) {
    many[i] = (struct item){.post.fn = run, .loop = loop, .ran = &ran, .next = i == 10 ? &last : NULL};
    CHECK_INT(mr_loop_post(loop, &many[i].post), MR_OK);
  }
  mr_loop_run(loop); /* ends when the last one has run */
  CHECK_INT(ran, MANY + 1);
  mr_loop_free(&loop);
}
