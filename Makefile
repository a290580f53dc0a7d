# moonrig: settings first; nothing below the line needs editing.
CC       ?= gcc
FLAVOR   ?= release          # release | debug | asan | tsan
SANDBOX  ?= 1                # 0: the library without the local sandbox (make lib SANDBOX=0)
WERROR   ?= -Werror
PREFIX   ?= /usr/local
DESTDIR  ?=
LUA54    ?= lua5.4
LUAJIT   ?= luajit
# For `make demo`: other invoices, another ledger, another place for the results.
INVOICES ?=
LEDGER   ?=
OUT      ?=
# ---------------------------------------------------------------------------------------------------
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
FLAVOR  := $(strip $(FLAVOR))
SANDBOX := $(strip $(SANDBOX))
VERSION := $(shell sed -n 's/^\#define MR_VERSION  *"\(.*\)"/\1/p' core/include/moonrig.h)

B_release = build
B_debug   = build/debug
B_asan    = build/asan
B_tsan    = build/tsan
B := $(B_$(FLAVOR))

WARN   = -Wall -Wextra $(WERROR) -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
         -Wno-unused-parameter
F_release = -O2
F_debug   = -O1 -DMR_DEBUG
F_asan    = -O1 -DMR_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
F_tsan    = -O1 -DMR_DEBUG -fsanitize=thread
SAN_asan  = -fsanitize=address,undefined
SAN_tsan  = -fsanitize=thread
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE -g $(F_$(FLAVOR)) $(WARN) -fvisibility=hidden -fPIC -MMD -MP \
             -Icore -Icore/include $(CFLAGS)
LDFLAGS_ALL = $(SAN_$(FLAVOR)) -Wl,-z,relro,-z,now $(LDFLAGS)
LIBS      = -levent_core -lcurl -lllhttp -lyyjson -lsqlite3 -lssl -lcrypto -lpthread -lm

ROOMS = base loop net store store/sqlite model agent ops api host sandbox
ifeq ($(SANDBOX),1)
ROOMS += sandbox/local sandbox/egress
else
CFLAGS_ALL += -DMR_NO_SANDBOX
endif
LIB_SRC    := $(foreach r,$(ROOMS),$(wildcard core/$(r)/*.c))
LIB_OBJ    := $(LIB_SRC:%.c=$(B)/%.o)
SCRIPT_SRC := $(wildcard core/script/*.c)
MAIN_SRC   := $(wildcard core/main/*.c)
LUA_SRC    := $(sort $(shell find lua/moonrig -name '*.lua' -not -path '*/_meta/*' 2>/dev/null))
UNIT_SRC   := $(filter-out tests/unit/kit.c,$(wildcard tests/unit/*.c))
UNIT       := $(UNIT_SRC:tests/unit/%.c=$(B)/tests/unit/%)
BENCH_SRC  := $(wildcard tests/bench/*.c)
BENCH      := $(BENCH_SRC:tests/bench/%.c=$(B)/bench/%)
HOSTS_SRC  := $(wildcard tests/embed/*.c)
HOSTS      := $(HOSTS_SRC:tests/embed/%.c=$(B)/tests/embed/%)
DRIVE_SRC  := $(wildcard tests/sandbox/*.c tests/crash/*.c tests/fuzz/*.c)
DRIVE      := $(DRIVE_SRC:tests/%.c=$(B)/tests/%)
MOCK       := $(patsubst tests/mock/%.c,$(B)/tests/mock/%,$(wildcard tests/mock/*.c))
LUA54_CFLAGS  = $(shell pkg-config --cflags $(LUA54)) -DMR_LUA54
LUA54_LIBS    = $(shell pkg-config --libs $(LUA54)) -ldl
LUAJIT_CFLAGS = $(shell pkg-config --cflags $(LUAJIT))
LUAJIT_LIBS   = $(shell pkg-config --libs $(LUAJIT)) -ldl

# The helpers that run around and inside a sandbox: static, embedded in the library as bytes.
HELPERS   := $(if $(filter 1,$(SANDBOX)),$(foreach h,launcher envd,$(if $(wildcard core/sandbox/helpers/$(h)*.c),$(h))))
HELPER_OBJ := $(HELPERS:%=$(B)/helpers/%_bytes.o)

PROGRAM := $(if $(MAIN_SRC),$(B)/moonrig)
LUAJIT_TEST := $(if $(SCRIPT_SRC),$(B)/lua/5.1/moonrig.so)

.PHONY: all lib demo check check-all bench asan tsan install clean fmt help tests guards
all: $(B)/libmoonrig.a $(B)/libmoonrig.so $(PROGRAM)
lib: $(B)/libmoonrig.a $(B)/libmoonrig.so

$(B)/core/%.o: core/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c $< -o $@

$(B)/libmoonrig.a: $(LIB_OBJ) $(HELPER_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^
$(B)/libmoonrig.so: $(LIB_OBJ) $(HELPER_OBJ)
	@mkdir -p $(@D)
	$(CC) -shared -Wl,-soname,libmoonrig.so.0 -Wl,-z,nodelete -Wl,--as-needed $(LDFLAGS_ALL) $^ -o $@ $(LIBS)

# --- sandbox helpers
HELPER_CFLAGS = -std=c11 -D_GNU_SOURCE -O2 -g $(WARN) -DPCRE2_CODE_UNIT_WIDTH=8 -MMD -MP
$(B)/helpers/obj/%.o: core/sandbox/helpers/%.c
	@mkdir -p $(@D)
	$(CC) $(HELPER_CFLAGS) -c $< -o $@
helper_obj = $(patsubst core/sandbox/helpers/%.c,$(B)/helpers/obj/%.o,$(wildcard core/sandbox/helpers/$(1)*.c core/sandbox/helpers/proto*.c))
$(B)/helpers/launcher: $(call helper_obj,launcher)
	$(CC) -static $^ -o $@ -lseccomp
$(B)/helpers/envd: $(call helper_obj,envd)
	$(CC) -static $^ -o $@ -lseccomp -lpcre2-8
$(B)/helpers/%_bytes.c: $(B)/helpers/% scripts/dev/embed
	strip -o $(B)/helpers/$*.stripped $<
	scripts/dev/embed mr_helper_$* $(B)/helpers/$*.stripped > $@
$(B)/helpers/%_bytes.o: $(B)/helpers/%_bytes.c
	$(CC) $(CFLAGS_ALL) -c $< -o $@

# --- the Lua face, once per ABI
$(B)/lua54/%.o: core/script/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(LUA54_CFLAGS) -c $< -o $@
$(B)/lua51/%.o: core/script/%.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(LUAJIT_CFLAGS) -c $< -o $@
$(B)/lua_sources.c: $(LUA_SRC) scripts/dev/embed
	@mkdir -p $(@D)
	scripts/dev/embed --lua lua $(LUA_SRC) > $@
$(B)/lua_sources.o: $(B)/lua_sources.c
	$(CC) $(CFLAGS_ALL) -c $< -o $@
SCRIPT54 = $(SCRIPT_SRC:core/script/%.c=$(B)/lua54/%.o) $(B)/lua_sources.o
SCRIPT51 = $(SCRIPT_SRC:core/script/%.c=$(B)/lua51/%.o) $(B)/lua_sources.o
$(B)/lua/5.1/moonrig.so: $(SCRIPT51) $(B)/libmoonrig.a
	@mkdir -p $(@D)
	$(CC) -shared -Wl,-z,nodelete $(LDFLAGS_ALL) $^ -o $@ $(LIBS)

$(B)/moonrig: $(MAIN_SRC:%.c=$(B)/%.o) $(SCRIPT54) $(B)/libmoonrig.a
	$(CC) $(LDFLAGS_ALL) -Wl,--as-needed $^ -o $@ $(LUA54_LIBS) $(LIBS)

# --- tests
$(B)/tests/unit/%: tests/unit/%.c tests/unit/kit.c tests/unit/kit.h $(B)/libmoonrig.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -Wno-missing-prototypes -Itests/unit $(LDFLAGS_ALL) $< tests/unit/kit.c $(B)/libmoonrig.a -o $@ $(LIBS)
$(B)/bench/%: tests/bench/%.c $(B)/libmoonrig.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $< $(B)/libmoonrig.a -o $@ $(LIBS)
$(B)/tests/embed/%: tests/embed/%.c $(B)/libmoonrig.a
	@mkdir -p $(@D)
	$(CC) -std=c11 -D_GNU_SOURCE -g $(WARN) -Icore/include $(LDFLAGS_ALL) $< $(B)/libmoonrig.a -o $@ $(LIBS)
$(DRIVE) $(MOCK): $(B)/tests/%: tests/%.c $(B)/libmoonrig.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $< $(B)/libmoonrig.a -o $@ $(LIBS)
tests: all $(UNIT) $(HOSTS) $(DRIVE) $(MOCK) $(LUAJIT_TEST)

guards:
	scripts/dev/floors
	scripts/dev/banned
ifeq ($(FLAVOR),release)
	scripts/dev/symbols $(B)/libmoonrig.a
endif

check:
	@scripts/dev/deps test
	$(MAKE) FLAVOR=$(FLAVOR) tests
	$(MAKE) FLAVOR=debug all
	$(MAKE) FLAVOR=$(FLAVOR) guards
	tests/run --flavor $(FLAVOR)
check-all: check
	tests/run --flavor $(FLAVOR) --long
asan:
	$(MAKE) FLAVOR=asan tests
	tests/run --flavor asan
tsan:
	$(MAKE) FLAVOR=tsan tests
	tests/run --flavor tsan --only unit/loop,unit/store,unit/host,embed
bench: all $(BENCH) $(MOCK)
	tests/bench/run

demo:
	@scripts/dev/deps build
	@$(MAKE) --no-print-directory -s all
	build/moonrig run examples/invoices/reconcile.lua $(if $(INVOICES),--invoices $(INVOICES)) \
	  $(if $(LEDGER),--ledger $(LEDGER)) $(if $(OUT),--out $(OUT))

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	install $(B)/moonrig $(DESTDIR)$(PREFIX)/bin/
	install -m 644 core/include/moonrig.h core/include/moonrig_ext.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(B)/libmoonrig.a $(DESTDIR)$(PREFIX)/lib/
	install $(B)/libmoonrig.so $(DESTDIR)$(PREFIX)/lib/libmoonrig.so.0
	ln -sf libmoonrig.so.0 $(DESTDIR)$(PREFIX)/lib/libmoonrig.so
	printf 'prefix=%s\nName: moonrig\nDescription: agent runtime\nVersion: %s\nLibs: -L$${prefix}/lib -lmoonrig\nLibs.private: %s\nCflags: -I$${prefix}/include\n' \
	  '$(PREFIX)' '$(VERSION)' '$(LIBS)' > $(DESTDIR)$(PREFIX)/lib/pkgconfig/moonrig.pc

clean:
	rm -rf build
fmt:
	clang-format -i $(LIB_SRC) $(SCRIPT_SRC) $(MAIN_SRC)
help:
	@echo 'make             build/moonrig and build/libmoonrig.{a,so}'
	@echo 'make demo        installs what is missing, builds, reconciles the invoices of examples/invoices'
	@echo '                 (INVOICES=dir LEDGER=file.csv OUT=dir)'
	@echo 'make check       installs what is missing, builds, runs the tests; check-all: the long ones too'
	@echo 'make bench       benchmarks, each against a limit measured in the same run'
	@echo 'make asan tsan   the tests under sanitizers'
	@echo 'make lib SANDBOX=0   the library alone, without the local sandbox'
	@echo 'make install     PREFIX=$(PREFIX) DESTDIR='
	@echo 'make clean fmt help'
	@echo 'Variables: CC FLAVOR=release|debug|asan|tsan CFLAGS LDFLAGS'

-include $(LIB_OBJ:.o=.d) $(MAIN_SRC:%.c=$(B)/%.d) $(SCRIPT54:.o=.d) $(SCRIPT51:.o=.d)
-include $(wildcard $(B)/helpers/obj/*.d)
