/*
 * fault.c - fault points and switches of debug builds; see sys.h. The only file with writable statics
 * (counters of a process under test); it is empty in release builds.
 */
#include "base/sys.h"

#ifdef MR_DEBUG
#include <signal.h>
#include <stdatomic.h>
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

bool mr_fault_hit(const char *point)
{
  static atomic_int passes;
  const char *what = list_find(getenv("MOONRIG_FAULT"), point);
  const char *at;

  if (!what)
    return false;
  if (strncmp(what, "fail", 4) == 0)
    return true;
  if (strncmp(what, "kill", 4) == 0) {
    at = what[4] == '@' ? what + 5 : "1";
    if (atomic_fetch_add(&passes, 1) + 1 >= strtol(at, NULL, 10))
      kill(getpid(), SIGKILL);
  }
  return false;
}

bool mr_switch_on(const char *name)
{
  return list_find(getenv("MOONRIG_SWITCH"), name) != NULL;
}
#else
typedef int mr_fault_not_in_release;
#endif
