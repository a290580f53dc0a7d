/*
 * crypto - digests, randomness, hex and base64 as natives; lua/moonrig/crypto.lua is their public side.
 *
 * Not for ciphers and keys. None of these waits. base64 is used by sqlite.c too: bytes that are no text travel so
 * between the core and Lua. Script thread only.
 */
#include "script/script_t.h"

enum { RANDOM_MAX = 1 << 20 };

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ------------------------------------------------------------------ base64 */

size_t mr_lua_base64(const char *data, size_t n, bool url, char *out)
{
  const unsigned char *p = (const unsigned char *)data;
  char *at = out;
  for (size_t i = 0; i < n; i += 3) {
    size_t left = n - i;
    unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
    *at++ = standard[v >> 18];
    *at++ = standard[v >> 12 & 63];
    if (left > 1 || !url) *at++ = left > 1 ? standard[v >> 6 & 63] : '=';
    if (left > 2 || !url) *at++ = left > 2 ? standard[v & 63] : '=';
  }
  for (char *c = out; url && c < at; c++)
    *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
  return (size_t)(at - out);
}

static int value_of(unsigned char c)
{
  if (c == '-') c = '+';
  if (c == '_') c = '/';
  const char *at = c ? strchr(standard, c) : NULL;
  return at ? (int)(at - standard) : -1;
}

/* Either alphabet, with or without padding. The bytes are appended to b; 0, or the place (from 1) of what is wrong. */
LJMP static size_t unbase64(luaL_Buffer *b, const char *p, size_t n)
{
  unsigned v = 0;
  int have = 0;
  size_t padded = n;
  while (padded > 0 && n - padded < 2 && p[padded - 1] == '=')
    padded--;
  if (padded != n && n % 4 != 0) return n;
  for (size_t i = 0; i < padded; i++) {
    int x = value_of((unsigned char)p[i]);
    if (x < 0) return i + 1;
    v = v << 6 | (unsigned)x;
    have += 6;
    if (have < 8) continue;
    have -= 8;
    luaL_addchar(b, (char)(v >> have & 0xff));
  }
  if (have == 6 || (v & ((1U << have) - 1))) return padded; /* a lone letter, or bits that are lost */
  return 0;
}

LJMP bool mr_lua_push_unbase64(lua_State *L, const char *p, size_t n, size_t *bad)
{
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  *bad = unbase64(&b, p, n);
  luaL_pushresult(&b);
  if (*bad) lua_pop(L, 1);
  return *bad == 0;
}

/* base64(bytes, url) */
static int n_base64(lua_State *L)
{
  size_t n;
  const char *p = luaL_checklstring(L, 1, &n);
  bool url = lua_toboolean(L, 2);
  if (n > ((size_t)1 << 30)) return mr_lua_raise(L, "base64: more than 1 GiB");
  char *out = lua_newuserdata(L, 4 * ((n + 2) / 3) + 1);
  lua_pushlstring(L, out, mr_lua_base64(p, n, url, out));
  return 1;
}

/* unbase64(text) -> bytes, or nil and the place of what is wrong */
static int n_unbase64(lua_State *L)
{
  size_t n, bad;
  const char *p = luaL_checklstring(L, 1, &n);
  if (mr_lua_push_unbase64(L, p, n, &bad)) return 1;
  lua_pushnil(L);
  lua_pushinteger(L, (lua_Integer)bad);
  return 2;
}

/* --------------------------------------------------------------------- hex */

static void push_hex(lua_State *L, const char *p, size_t n)
{
  static const char digits[] = "0123456789abcdef";
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < n; i++) {
    luaL_addchar(&b, digits[(unsigned char)p[i] >> 4]);
    luaL_addchar(&b, digits[p[i] & 15]);
  }
  luaL_pushresult(&b);
}

static int n_hex(lua_State *L)
{
  size_t n;
  const char *p = luaL_checklstring(L, 1, &n);
  push_hex(L, p, n);
  return 1;
}

static int nibble(char c)
{
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* unhex(text) -> bytes, or nil and the place of what is wrong */
static int n_unhex(lua_State *L)
{
  size_t n, bad = 0;
  const char *p = luaL_checklstring(L, 1, &n);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < n && !bad; i += 2) {
    int hi = nibble(p[i]), lo = i + 1 < n ? nibble(p[i + 1]) : -1;
    if (hi < 0 || lo < 0)
      bad = hi < 0 ? i + 1 : i + 2;
    else
      luaL_addchar(&b, (char)(hi << 4 | lo));
  }
  luaL_pushresult(&b);
  if (!bad) return 1;
  lua_pushnil(L);
  lua_pushinteger(L, (lua_Integer)bad);
  return 2;
}

/* ----------------------------------------------------------------- digests */

/* digest(name, data, key or nil, raw) -> hex, or bytes; nil for an unknown name */
static int n_digest(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  const char *name = luaL_checkstring(L, 1);
  struct mr_str data, key;
  unsigned char out[64];
  size_t n;
  data.p = luaL_checklstring(L, 2, &data.n);
  key.p = luaL_optlstring(L, 3, NULL, &key.n);
  if (!s->ext->digest) return mr_lua_raise(L, "rig.crypto: this host has no digests");
  int rc = s->ext->digest(name, key.p ? &key : NULL, data, out, &n);
  if (rc == MR_E_INVALID) return 0;
  if (rc) return mr_lua_raise(L, "%s is not allowed by this machine's OpenSSL", name);
  if (lua_toboolean(L, 4))
    lua_pushlstring(L, (char *)out, n);
  else
    push_hex(L, (char *)out, n);
  return 1;
}

/* random(n) -> n bytes */
static int n_random(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_Number n = luaL_checknumber(L, 1);
  if (!(n >= 0 && n <= RANDOM_MAX) || n != (lua_Number)(size_t)n)
    return mr_lua_raise(L, "rig.crypto.random: a whole number of bytes from 0 to %d", RANDOM_MAX);
  char *buf = lua_newuserdata(L, (size_t)n + 1);
  if (!s->ext->random || s->ext->random(s->rt, buf, (size_t)n) != MR_OK)
    return mr_lua_raise(L, "no randomness from the system");
  lua_pushlstring(L, buf, (size_t)n);
  return 1;
}

/* same(a, b): in time that depends on the lengths alone */
static int n_same(lua_State *L)
{
  size_t an, bn;
  const char *a = luaL_checklstring(L, 1, &an), *b = luaL_checklstring(L, 2, &bn);
  volatile unsigned char diff = 0;
  for (size_t i = 0; i < an && an == bn; i++)
    diff |= (unsigned char)(a[i] ^ b[i]);
  lua_pushboolean(L, an == bn && diff == 0);
  return 1;
}

const luaL_Reg mr_lua_crypto_natives[] = {
    {"base64", n_base64}, {"unbase64", n_unbase64}, {"hex", n_hex},   {"unhex", n_unhex},
    {"digest", n_digest}, {"random", n_random},     {"same", n_same}, {NULL, NULL}};
