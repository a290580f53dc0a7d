/*
 * kit - the unit test kit: each TEST runs in a forked child with a time limit, so that a crash or a
 * hang is one failed test. A binary prints "ok NAME" / "not ok NAME" lines; arguments select tests.
 */
#ifndef MR_TEST_KIT_H
#define MR_TEST_KIT_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "base/sys.h"

struct test {
  const char *name;
  void (*fn)(void);
  struct test *next;
};
void test_register(struct test *t);
void test_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4), noreturn));
void test_skip(const char *why) __attribute__((noreturn)); /* ends the test as skipped */

#define TEST(n)                                                                              \
  static void test_##n(void);                                                                \
  __attribute__((constructor)) static void test_reg_##n(void)                                \
  {                                                                                          \
    static struct test t = {#n, test_##n, 0};                                                \
    test_register(&t);                                                                       \
  }                                                                                          \
  static void test_##n(void)

#define CHECK(cond) ((cond) ? (void)0 : test_fail(__FILE__, __LINE__, "%s", #cond))
#define CHECK_INT(a, b)                                                                      \
  do {                                                                                       \
    long long a_ = (long long)(a), b_ = (long long)(b);                                      \
    if (a_ != b_)                                                                            \
      test_fail(__FILE__, __LINE__, "%s is %lld, not %lld", #a, a_, b_);                     \
  } while (0)
#define CHECK_STR(a, lit)                                                                    \
  do {                                                                                       \
    struct mr_str a_ = (a);                                                                  \
    if (!mr_str_is(a_, lit))                                                                 \
      test_fail(__FILE__, __LINE__, "%s is \"%.*s\", not \"%s\"", #a, (int)a_.n, a_.p ? a_.p : "", lit); \
  } while (0)

/* A mr_sys for tests: real clocks until test_clock_set, an allocator that can be told to fail. */
struct mr_sys *test_sys(void);
void test_clock_set(int64_t mono_us, int64_t wall_us); /* from now on these; move them by calling again */
void test_fail_after(long n);  /* the n-th allocation from now and all later ones fail; -1 = never */
long test_allocs(void);        /* blocks not freed */
/* A fresh directory under TMPDIR, removed when the test ends. */
const char *test_dir(void);

#endif
