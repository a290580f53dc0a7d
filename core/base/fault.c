/*
 * fault.c - fault points and switches of debug builds; see sys.h. The only file with writable statics
 * (counters of a process under test); it is empty in release builds.
 */
#include "base/sys.h"

#ifdef MR_DEBUG
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Finds "name" or "name=value" in a comma list; returns the text behind "=", "" without one, or NULL. */
static const char *list_find(const char *list, const char *name)
{
  size_t n = strlen(name);
  while (list && *list) {
    if (strncmp(list, name, n) == 0 && (list[n] == '=' || list[n] == ',' || list[n] == '\0'))
      return list[n] == '=' ? list + n + 1 : "";
    list = strchr(list, ',');
    list += list != NULL;
  }
  return NULL;
}

/* Which pass of this point is this? Points are told apart by their text; those of one process are few. */
static int pass_of(const char *point)
{
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static struct {
    char name[48];
    int n;
  } seen[16];
  int n = 0;

  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < sizeof seen / sizeof *seen && n == 0; i++) {
    if (!seen[i].name[0]) snprintf(seen[i].name, sizeof seen[i].name, "%s", point);
    if (strncmp(seen[i].name, point, sizeof seen[i].name - 1) == 0) n = ++seen[i].n;
  }
  pthread_mutex_unlock(&lock);
  return n;
}

bool mr_fault_hit(const char *point)
{
  const char *what = list_find(getenv("MOONRIG_FAULT"), point), *at;
  bool die, now;

  if (!what) return false;
  die = strncmp(what, "kill", 4) == 0;
  if (!die && strncmp(what, "fail", 4) != 0) return false;
  at = what[4] == '@' ? what + 5 : NULL;
  now = die ? pass_of(point) >= (at ? strtol(at, NULL, 10) : 1) : !at || pass_of(point) == strtol(at, NULL, 10);
  if (now && die) kill(getpid(), SIGKILL);
  return now;
}

bool mr_switch_on(const char *name)
{
  return list_find(getenv("MOONRIG_SWITCH"), name) != NULL;
}
#else
typedef int mr_fault_not_in_release;
#endif
