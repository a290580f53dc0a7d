/* environments.c - input shapes of environments (API: resources, environments). */
#include "ops/shape.h"

#define METADATA                                                                                               \
  {                                                                                                            \
    "metadata", MR_F_OBJ | MR_F_NULL | MR_F_PATCH, .item = MR_F_STR                                            \
  }
#define PACKAGES(name)                                                                                         \
  {                                                                                                            \
    name, MR_F_ARR | MR_F_NULL, .max = 500, .item = MR_F_STR, .item_max = 256                                  \
  }

static const struct mr_field packages[] = {{"type", MR_F_STR, .values = "packages"},
                                           PACKAGES("apt"),
                                           PACKAGES("cargo"),
                                           PACKAGES("gem"),
                                           PACKAGES("go"),
                                           PACKAGES("npm"),
                                           PACKAGES("pip")};
static const struct mr_shape packages_shape = {packages, sizeof packages / sizeof *packages};

static const struct mr_field networking[] = {
    {"type", MR_F_STR | MR_F_REQUIRED, .values = "unrestricted|limited"},
    {"allowed_hosts", MR_F_ARR | MR_F_NULL, .max = 1000, .item = MR_F_STR, .item_max = 255},
    {"allow_mcp_servers", MR_F_BOOL | MR_F_NULL},
    {"allow_package_managers", MR_F_BOOL | MR_F_NULL}};
static const struct mr_shape networking_shape = {networking, 4};

static const struct mr_field config[] = {{"type", MR_F_STR | MR_F_REQUIRED, .values = "cloud|self_hosted"},
                                         {"networking", MR_F_OBJ | MR_F_NULL, .of = &networking_shape},
                                         {"packages", MR_F_OBJ | MR_F_NULL, .of = &packages_shape}};
static const struct mr_shape config_shape = {config, 3};

#define ENVIRONMENT                                                                                            \
  {"description", MR_F_STR | MR_F_NULL, .max = 2048}, {"config", MR_F_OBJ | MR_F_NULL, .of = &config_shape},   \
      {"scope", MR_F_STR | MR_F_NULL, .values = "organization|account"}, METADATA

MR_SHAPE(environments_create, {"name", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 256}, ENVIRONMENT);
MR_SHAPE(environments_update, {"name", MR_F_STR | MR_F_NULL, .min = 1, .max = 256}, ENVIRONMENT);

/* ---- the work queue. worker_id is a header over HTTP: Anthropic-Worker-ID ---- */

MR_SHAPE(work_poll, {"block_ms", MR_F_INT | MR_F_NULL, .min = 1, .max = 999},
         {"reclaim_older_than_ms", MR_F_INT | MR_F_NULL, .min = 0, .max = 86400000},
         {"worker_id", MR_F_STR | MR_F_NULL, .max = 256});
MR_SHAPE(work_heartbeat, {"desired_ttl_seconds", MR_F_INT | MR_F_NULL},
         {"expected_last_heartbeat", MR_F_STR | MR_F_NULL, .max = 64});
MR_SHAPE(work_stop, {"force", MR_F_BOOL | MR_F_NULL});
/* What metadata holds is checked with all its faults named (agent/work_ops.c). */
MR_SHAPE(work_update, {"metadata", MR_F_OBJ | MR_F_REQUIRED | MR_F_NULL});
