# moonrig: settings first; nothing below the line needs editing.
CC       ?= gcc
FLAVOR   ?= release
# release | debug (fault points) | asan | tsan
BUILD    ?= build
SANDBOX  ?= 1
# 0: the library without the local sandbox (make lib SANDBOX=0)
WERROR   ?= -Werror
PREFIX   ?= /usr/local
DESTDIR  ?=
LUA54    ?= lua5.4
LUAJIT   ?= luajit
# For `make demo`: other invoices, another ledger, another place for the results.
INVOICES ?=
LEDGER   ?=
OUT      ?=
DATA     ?=
# For the tests: what tests/run is told beside the flavour, e.g. ONLY=unit/base_str
ONLY     ?=
JOBS     ?= 1
# ---------------------------------------------------------------------------------------------------
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all
VERSION := $(shell sed -n 's/^\#define MR_VERSION  *"\(.*\)"/\1/p' core/include/moonrig.h)
Q := $(if $(V),,@)

B_release = $(BUILD)
B_debug   = $(BUILD)/debug
B_asan    = $(BUILD)/asan
B_tsan    = $(BUILD)/tsan
B := $(B_$(FLAVOR))
ifeq ($(B),)
$(error FLAVOR is release, debug, asan or tsan, not '$(FLAVOR)')
endif

WARN   = -Wall -Wextra $(WERROR) -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
         -Wno-unused-parameter -Wno-missing-field-initializers
F_release = -O2
F_debug   = -O1 -DMR_DEBUG
F_asan    = -O1 -DMR_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=undefined \
            -fno-omit-frame-pointer
F_tsan    = -O1 -DMR_DEBUG -fsanitize=thread
SAN_asan  = -fsanitize=address,undefined
SAN_tsan  = -fsanitize=thread
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE -g $(F_$(FLAVOR)) $(WARN) -fvisibility=hidden -fPIC \
             -Icore -Icore/include $(XML_CFLAGS) $(CFLAGS)
XML_CFLAGS := $(shell pkg-config --cflags libxml-2.0)
LDFLAGS_ALL = $(SAN_$(FLAVOR)) -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS)
LIBS = -levent_core -lcurl -lxml2 -lllhttp -lyyjson -lsqlite3 -lssl -lcrypto -lpthread -lm

ROOMS = base loop net store store/sqlite model agent ops api host sandbox
ifeq ($(SANDBOX),1)
ROOMS += sandbox/local sandbox/egress
else
CFLAGS_ALL += -DMR_NO_SANDBOX
endif
LIB_SRC    := $(foreach r,$(ROOMS),$(wildcard core/$(r)/*.c))
SCRIPT_SRC := $(wildcard core/script/*.c)
MAIN_SRC   := $(wildcard core/main/*.c)
LUA_SRC    := $(sort $(shell find lua/moonrig -name '*.lua' -not -path '*/_meta/*' 2>/dev/null))
NEW_FILES  := $(sort $(shell find lua/new -type f 2>/dev/null))
LUA54_CFLAGS  = $(shell pkg-config --cflags $(LUA54)) -DMR_LUA54
LUA54_LIBS    = $(shell pkg-config --libs $(LUA54)) -ldl
LUAJIT_CFLAGS = $(shell pkg-config --cflags $(LUAJIT))

# The helpers that run around and inside a sandbox: static, embedded in the library as bytes.
HELPERS := $(if $(filter 1,$(SANDBOX)),$(foreach h,launcher envd keep,$(if $(wildcard core/sandbox/helpers/$(h)*.c),$(h))))

LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o) $(HELPERS:%=$(B)/helpers/%_bytes.o) $(if $(HELPERS),$(B)/helpers/install_bytes.o)
MAIN_OBJ := $(MAIN_SRC:%.c=$(B)/%.o) $(B)/new_files.o
SCRIPT54 := $(SCRIPT_SRC:core/script/%.c=$(B)/lua54/%.o) $(B)/lua_sources.o
SCRIPT51 := $(SCRIPT_SRC:core/script/%.c=$(B)/lua51/%.o) $(B)/lua_sources.o
PROGRAM  := $(if $(MAIN_SRC),$(B)/moonrig)
MODULE51 := $(if $(SCRIPT_SRC),$(B)/lua/5.1/moonrig.so)

# Programs of the tests: each .c of these directories is one, linked with the library.
UNIT  := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(filter-out tests/unit/kit.c,$(wildcard tests/unit/*.c)))
HOSTS := $(patsubst tests/embed/%.c,$(B)/tests/embed/%,$(wildcard tests/embed/*.c))
BENCH := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/*.c))
TOOLS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard $(foreach d,api crash fuzz mock sandbox streams torture,tests/$(d)/*.c)))
TEST_SRC := $(wildcard tests/unit/*.c tests/bench/*.c) $(TOOLS:$(B)/%=%.c)
TEST_OBJ := $(TEST_SRC:%.c=$(B)/obj/%.o) $(HOSTS:$(B)/%=$(B)/obj/%.o)

.PHONY: all lib demo check check-all test-build bench asan tsan install clean fmt help tests guards FORCE
all: $(B)/libmoonrig.a $(B)/libmoonrig.so $(PROGRAM)
lib: $(B)/libmoonrig.a $(B)/libmoonrig.so

# Results appear by rename, so that a second make in this tree never sees half a file.
say = @printf '  %-5s %s\n' '$(1)' '$@'
mkd = @mkdir -p $(@D)
cc  = $(Q)$(CC) $(1) -MMD -MP -MF $(@:.o=.d) -MT $@ -c $< -o $@.$$$$ && mv -f $@.$$$$ $@
ld  = $(Q)$(CC) $(1) -o $@.$$$$ $(2) && mv -f $@.$$$$ $@
# A file that changes only when its text does: other flags, or other sources, rebuild what needs it.
stamp = $(Q)mkdir -p $(@D); printf '%s\n' '$(1)' | cmp -s - $@ || printf '%s\n' '$(1)' > $@
FORCE:
$(B)/.flags: FORCE
	$(call stamp,$(CC) $(CFLAGS_ALL))
$(B)/.lib: FORCE
	$(call stamp,$(sort $(LIB_OBJ)))
$(B)/.lua: FORCE
	$(call stamp,$(LUA_SRC) $(NEW_FILES))

$(B)/core/%.o: core/%.c $(B)/.flags
	$(mkd)
	$(call say,CC)
	$(call cc,$(CFLAGS_ALL))
$(B)/libmoonrig.a: $(LIB_OBJ) $(B)/.lib
	$(mkd)
	$(call say,AR)
	$(Q)ar qcs $@.$$$$ $(filter %.o,$^) && mv -f $@.$$$$ $@
$(B)/libmoonrig.so: $(LIB_OBJ) $(B)/.lib
	$(mkd)
	$(call say,LD)
	$(call ld,-shared -Wl$(,)-soname$(,)libmoonrig.so.0 -Wl$(,)-z$(,)nodelete $(LDFLAGS_ALL),$(filter %.o,$^) $(LIBS))
, := ,

# --- sandbox helpers
HELPER_CFLAGS = -std=c11 -D_GNU_SOURCE -O2 -g $(WARN) -DPCRE2_CODE_UNIT_WIDTH=8
helper_obj = $(patsubst core/sandbox/helpers/%.c,$(B)/helpers/obj/%.o,$(wildcard core/sandbox/helpers/$(1)*.c core/sandbox/helpers/proto*.c))
$(B)/helpers/obj/%.o: core/sandbox/helpers/%.c $(B)/.flags
	$(mkd)
	$(call say,CC)
	$(call cc,$(HELPER_CFLAGS))
$(B)/helpers/launcher: $(call helper_obj,launcher)
	$(call say,LD)
	$(call ld,-static,$^ -lseccomp)
$(B)/helpers/envd: $(call helper_obj,envd)
	$(call say,LD)
	$(call ld,-static,$^ -lseccomp -lpcre2-8)
# Not static: libarchive's own libraries come as shared ones. It runs beside the sandbox, never in it.
$(B)/helpers/keep: $(call helper_obj,keep)
	$(call say,LD)
	$(call ld,,$^ -larchive -lseccomp)
# The tests of envd run this one in the asan flavour; what is embedded stays static.
$(B)/helpers/asan/%.o: core/sandbox/helpers/%.c $(B)/.flags
	$(mkd)
	$(call say,CC)
	$(call cc,$(HELPER_CFLAGS) -O1 $(F_asan))
$(B)/helpers/envd-asan: $(patsubst core/sandbox/helpers/%.c,$(B)/helpers/asan/%.o,$(wildcard core/sandbox/helpers/envd*.c core/sandbox/helpers/proto*.c))
	$(call say,LD)
	$(call ld,$(SAN_asan),$^ -lseccomp -lpcre2-8)
$(B)/helpers/%_bytes.c: $(B)/helpers/% scripts/dev/embed
	$(call say,EMBED)
	$(Q)strip -o $(B)/helpers/$*.stripped $< && scripts/dev/embed mr_helper_$* $(B)/helpers/$*.stripped > $@.$$$$ && mv -f $@.$$$$ $@
$(B)/helpers/install_bytes.c: core/sandbox/helpers/install.sh scripts/dev/embed
	$(mkd)
	$(call say,EMBED)
	$(Q)scripts/dev/embed mr_helper_install $< > $@.$$$$ && mv -f $@.$$$$ $@
$(B)/helpers/%_bytes.o: $(B)/helpers/%_bytes.c $(B)/.flags
	$(call say,CC)
	$(call cc,$(CFLAGS_ALL))

# --- the Lua face, once per ABI
$(B)/lua54/%.o: core/script/%.c $(B)/.flags
	$(mkd)
	$(call say,CC)
	$(call cc,$(CFLAGS_ALL) $(LUA54_CFLAGS))
$(B)/lua51/%.o: core/script/%.c $(B)/.flags
	$(mkd)
	$(call say,CC)
	$(call cc,$(CFLAGS_ALL) $(LUAJIT_CFLAGS))
$(B)/lua_sources.c: $(LUA_SRC) scripts/dev/embed $(B)/.lua
	$(mkd)
	$(call say,EMBED)
	$(Q)scripts/dev/embed --lua lua $(LUA_SRC) > $@.$$$$ && mv -f $@.$$$$ $@
$(B)/lua_sources.o: $(B)/lua_sources.c $(B)/.flags
	$(call say,CC)
	$(call cc,$(CFLAGS_ALL))
# What moonrig new writes.
$(B)/new_files.c: $(NEW_FILES) scripts/dev/embed $(B)/.lua
	$(mkd)
	$(call say,EMBED)
	$(Q)scripts/dev/embed --files mr_new_files lua/new $(NEW_FILES) > $@.$$$$ && mv -f $@.$$$$ $@
$(B)/new_files.o: $(B)/new_files.c $(B)/.flags
	$(call say,CC)
	$(call cc,$(CFLAGS_ALL))
$(B)/lua/5.1/moonrig.so: $(SCRIPT51) $(B)/libmoonrig.a
	$(mkd)
	$(call say,LD)
	$(call ld,-shared -Wl$(,)-z$(,)nodelete -Wl$(,)-Bsymbolic $(LDFLAGS_ALL),$^ $(LIBS))
$(B)/moonrig: $(MAIN_OBJ) $(SCRIPT54) $(B)/libmoonrig.a
	$(call say,LD)
	$(call ld,$(LDFLAGS_ALL),$^ $(LUA54_LIBS) $(LIBS))

# --- tests
$(B)/obj/tests/embed/%.o: tests/embed/%.c $(B)/.flags
	$(mkd)
	$(call say,CC)
	$(call cc,-std=c11 -D_GNU_SOURCE -g $(F_$(FLAVOR)) $(WARN) -Icore/include $(CFLAGS))
$(B)/obj/tests/%.o: tests/%.c $(B)/.flags
	$(mkd)
	$(call say,CC)
	$(call cc,$(CFLAGS_ALL) -Wno-missing-prototypes -Itests/unit)
$(UNIT): $(B)/tests/unit/%: $(B)/obj/tests/unit/%.o $(B)/obj/tests/unit/kit.o $(B)/libmoonrig.a
	$(mkd)
	$(call say,LD)
	$(call ld,$(LDFLAGS_ALL),$^ $(LIBS))
$(HOSTS) $(TOOLS): $(B)/tests/%: $(B)/obj/tests/%.o $(B)/libmoonrig.a
	$(mkd)
	$(call say,LD)
	$(call ld,$(LDFLAGS_ALL),$^ $(LIBS))
$(filter-out %/handlers,$(BENCH)): $(B)/bench/%: $(B)/obj/tests/bench/%.o $(B)/libmoonrig.a
	$(mkd)
	$(call say,LD)
	$(call ld,$(LDFLAGS_ALL),$^ $(LIBS))
# With the Lua face, and the results of tools caught.
$(B)/obj/tests/bench/handlers.o: CFLAGS_ALL += $(LUA54_CFLAGS)
$(B)/bench/handlers: $(B)/obj/tests/bench/handlers.o $(SCRIPT54) $(B)/libmoonrig.a
	$(mkd)
	$(call say,LD)
	$(call ld,$(LDFLAGS_ALL) -Wl$(,)--wrap=mr_tool_run_done,$^ $(LUA54_LIBS) $(LIBS))
tests: all $(UNIT) $(HOSTS) $(TOOLS) $(MODULE51) $(if $(filter asan,$(FLAVOR)),$(if $(HELPERS),$(B)/helpers/envd-asan))

guards: $(if $(filter release,$(FLAVOR)),$(B)/libmoonrig.a)
	@scripts/dev/floors
	@scripts/dev/banned
	@$(if $(filter release,$(FLAVOR)),scripts/dev/symbols $(B)/libmoonrig.a)

RUN = tests/run --build $(BUILD) --flavor $(FLAVOR) -j $(JOBS) $(if $(ONLY),--only $(ONLY))
test-build:
	@scripts/dev/deps test
	@$(MAKE) tests
	@$(if $(filter release,$(FLAVOR)),$(MAKE) FLAVOR=debug all $(B_debug)/tests/crash/driver)
	@$(MAKE) guards
check: test-build
	@$(RUN)
check-all: test-build
	@$(RUN) --long
asan:
	@$(MAKE) FLAVOR=asan tests
	@tests/run --build $(BUILD) --flavor asan -j $(JOBS) $(if $(ONLY),--only $(ONLY),--without $(CLIENTS)$(comma)$(OUTSIDE))
# What the other clients ask of the server sdk/ts asks too: under a sanitizer one of them is enough.
CLIENTS = sdk/ts0,sdk/python,sdk/python0,sdk/go,sdk/go1,sdk/ant
# What waits for package managers and compares programs that no sanitizer is in.
OUTSIDE = packages,sandbox/conform
comma = ,
# What has threads: queues, the store, the host's side.
THREADED = unit/loop,unit/store,unit/host,embed
tsan:
	@$(MAKE) FLAVOR=tsan tests
	@tests/run --build $(BUILD) --flavor tsan -j $(JOBS) --only $(or $(ONLY),$(THREADED))
bench: all $(BENCH) $(TOOLS)
	@if [ -x tests/bench/run ]; then tests/bench/run; else echo 'tests/bench/run is not there'; fi

demo:
	@scripts/dev/deps build
	@$(MAKE) -s all
	@$(B)/moonrig doctor --quiet
	@$(B)/moonrig run --data $(or $(DATA),$(B)/demo-data) examples/invoices/reconcile.lua $(if $(INVOICES),--invoices $(INVOICES)) \
	  $(if $(LEDGER),--ledger $(LEDGER)) $(if $(OUT),--out $(OUT))

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	$(if $(PROGRAM),install $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/)
	install -m 644 core/include/moonrig.h core/include/moonrig_ext.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(B)/libmoonrig.a $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(B)/libmoonrig.so $(DESTDIR)$(PREFIX)/lib/libmoonrig.so.0
	ln -sf libmoonrig.so.0 $(DESTDIR)$(PREFIX)/lib/libmoonrig.so
	printf 'prefix=%s\nName: moonrig\nDescription: agent runtime\nVersion: %s\nLibs: -L$${prefix}/lib -lmoonrig\nLibs.private: %s\nCflags: -I$${prefix}/include\n' \
	  '$(PREFIX)' '$(VERSION)' '$(LIBS)' > $(DESTDIR)$(PREFIX)/lib/pkgconfig/moonrig.pc

clean:
	rm -rf $(BUILD)
fmt:
	scripts/dev/fmt
help:
	@echo 'make                 $(BUILD)/moonrig and $(BUILD)/libmoonrig.{a,so}'
	@echo 'make demo            installs what is missing, builds, reconciles the invoices of examples/invoices'
	@echo '                     (INVOICES=dir LEDGER=file.csv OUT=dir)'
	@echo 'make check           installs what is missing, builds, checks the house rules, runs the tests'
	@echo '                     (ONLY=unit/base_str or ONLY=unit JOBS=2); check-all: the long ones too'
	@echo 'make asan tsan       the tests under sanitizers'
	@echo 'make tests guards    builds the test programs; the house rules alone'
	@echo 'make bench           benchmarks, each against a limit measured in the same run'
	@echo 'make lib SANDBOX=0   the library alone, without the local sandbox'
	@echo 'make install         PREFIX=$(PREFIX) DESTDIR='
	@echo 'make clean fmt help'
	@echo 'Variables: CC CFLAGS LDFLAGS FLAVOR=release|debug|asan|tsan BUILD=dir V=1 (shows the commands)'

-include $(LIB_OBJ:.o=.d) $(MAIN_OBJ:.o=.d) $(SCRIPT54:.o=.d) $(SCRIPT51:.o=.d) $(TEST_OBJ:.o=.d)
-include $(wildcard $(B)/helpers/obj/*.d $(B)/helpers/asan/*.d)
