/*
 * sys - what the runtime takes from the outside, injectable: clocks, randomness, the log sink. One
 * struct mr_sys per runtime; every room gets a pointer to it. Any thread.
 */
#ifndef MR_BASE_SYS_H
#define MR_BASE_SYS_H

#include "base/mem.h"
#include "base/str.h"

struct mr_sys {
  struct mr_mem mem;
  int64_t (*wall_us)(void *ud);
  int64_t (*mono_us)(void *ud);
  int (*random)(void *ud, void *buf, size_t n);
  void (*log)(void *ud, int level, struct mr_str line); /* NULL: nothing is logged */
  int log_level;                                        /* lines above it are dropped */
  void *ud;
};

void mr_sys_init(struct mr_sys *s, const struct mr_config *c); /* c may be NULL: system defaults */
int64_t mr_wall_us(const struct mr_sys *s);
int64_t mr_mono_us(const struct mr_sys *s);
/* One line "room: message". Levels MR_LOG_*. Never fails; long lines are cut at 2,000 bytes. */
void mr_log(const struct mr_sys *s, int level, const char *room, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

enum { MR_ID_MAX = 48 };
/* "<prefix>_01" + 22 base-58 characters, NUL-terminated (spec/sessions.md §1.14). MR_E_IO when there
 * is no randomness. */
int mr_id_make(const struct mr_sys *s, char out[MR_ID_MAX], const char *prefix);
/* RFC 3339 UTC with six digits and Z; out has 28 bytes. Negative wall_us writes "". */
void mr_time_format(int64_t wall_us, char out[28]);
/* Reads RFC 3339 (any offset, 0-9 fraction digits). MR_E_INVALID. */
int mr_time_parse(struct mr_str s, int64_t *wall_us);

/*
 * Fault points and switches, in debug builds only (-DMR_DEBUG); in release builds they vanish.
 * MOONRIG_FAULT="store.commit=kill@3,net.write=fail" kills the process with SIGKILL at the third
 * pass, or makes MR_FAULT return true at each (fail@N: at the N-th alone).
 * MOONRIG_SWITCH="no-inbox-delete,..." turns a safety barrier off, so that tests can prove that a test
 * notices.
 */
#ifdef MR_DEBUG
bool mr_fault_hit(const char *point);
bool mr_switch_on(const char *name);
#define MR_FAULT(point) mr_fault_hit(point)
#define MR_SWITCH(name) mr_switch_on(name)
#else
#define MR_FAULT(point) (false)
#define MR_SWITCH(name) (false)
#endif

#endif
