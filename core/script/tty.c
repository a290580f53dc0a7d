/*
 * tty - descriptors of the process as natives: waiting until one can be read, reading what is there, how wide a
 * terminal is. For the commands that talk to a person (lua/moonrig/term.lua); scripts do not see them.
 *
 * Reads only what was said to be readable, so that the script thread never blocks. Terminal modes are left alone.
 */
#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "script/script_t.h"

enum { READ_MAX = 1 << 16 };

static void on_readable(void *ud)
{
  mr_lua_pend_value(ud, NULL, NULL);
}

static void undo_readable(struct mr_lua_pend *p)
{
  if (p->s->ext->readable_cancel(p->s->rt, p->id) == 1) mr_lua_pend_drop(p);
}

/* fd_wait(fd): until it can be read */
static int n_fd_wait(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  int fd = (int)luaL_checkinteger(L, 1);
  mr_lua_may_wait(L, s, "reading");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_readable);
  int rc = p ? s->ext->readable(s->rt, fd, on_readable, p, &p->id, &err) : MR_E_NOMEM;
  if (rc == MR_OK) return mr_lua_pend_wait(L, p);
  mr_lua_pend_drop(p);
  if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
  return mr_lua_fail_now(L, s, &err);
}

/* fd_ready(fd): is there something (or the end) now? */
static int n_fd_ready(lua_State *L)
{
  struct pollfd p = {.fd = (int)luaL_checkinteger(L, 1), .events = POLLIN};
  lua_pushboolean(L, poll(&p, 1, 0) > 0);
  return 1;
}

/* fd_read(fd) -> bytes, "" when there is nothing after all, nil at the end */
static int n_fd_read(lua_State *L)
{
  int fd = (int)luaL_checkinteger(L, 1);
  char *buf = lua_newuserdata(L, READ_MAX);
  ssize_t n = read(fd, buf, READ_MAX);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
    lua_pushliteral(L, "");
    return 1;
  }
  if (n <= 0) return 0;
  lua_pushlstring(L, buf, (size_t)n);
  return 1;
}

/* tty(fd) -> its width in columns (80 when it does not say); nil: not a terminal */
static int n_tty(lua_State *L)
{
  struct winsize w = {0};
  int fd = (int)luaL_checkinteger(L, 1);
  if (!isatty(fd)) return 0;
  lua_pushinteger(L, ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80);
  return 1;
}

const luaL_Reg mr_lua_tty_natives[] = {
    {"fd_wait", n_fd_wait}, {"fd_ready", n_fd_ready}, {"fd_read", n_fd_read}, {"tty", n_tty}, {NULL, NULL}};
