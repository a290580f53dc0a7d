/*
 * keep.h - what the files of the archiver share; see keep.c. Nothing else includes it but for the constants,
 * which the driver's copies must match (local/keep.c).
 */
#ifndef MR_KEEP_H
#define MR_KEEP_H

#include <archive.h>
#include <archive_entry.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The descriptors the driver gives; all others are closed at once. */
enum {
  KEEP_ARCHIVE = 0, /* a file: written, or read, from where it stands */
  KEEP_REPORT = 2,  /* lines for the driver */
  KEEP_DIR = 3,     /* workspace, outputs */
  KEEP_DIRS = 2,
  KEEP_FDS = 5,
  KEEP_DEPTH = 200, /* directories inside each other; what lies deeper is not kept */
  KEEP_PATH = 4000, /* bytes of a path in the archive, with NUL */
  KEEP_PIECE = 1 << 18
};
static const char *const keep_names[KEEP_DIRS] = {"workspace", "outputs"};

struct keep {
  bool restore, probe, switch_uid;
  uid_t uid;
  int64_t bytes_max, file_max, entries_max; /* of data in all, length of a file, files and directories */
  /* so far */
  int64_t bytes, entries, skipped, said;
  struct archive *a;
  unsigned char *piece;
};

/* How it failed: whose fault it is decides what the client is told. */
enum keep_fault { KEEP_INVALID, KEEP_LIMIT, KEEP_IO };
/* Prints one line on the report and ends the process. */
void keep_die(enum keep_fault f, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
void keep_count(struct keep *k, int64_t bytes,
                int64_t entries);     /* dies above the limits; tells how far it is */
void keep_jail(const struct keep *k); /* keep_jail.c; for good */
void keep_save(struct keep *k);       /* keep_save.c */
void keep_restore(struct keep *k);    /* keep_restore.c */

#endif
