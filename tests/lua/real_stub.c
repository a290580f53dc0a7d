/* require "host" in real_host: the functions are in the program. */
struct lua_State;
int real_host_open(struct lua_State *L);
__attribute__((visibility("default"))) int luaopen_host(struct lua_State *L);
int luaopen_host(struct lua_State *L) { return real_host_open(L); }
