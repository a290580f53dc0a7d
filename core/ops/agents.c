/* agents.c - input shapes of agents (API: resources, agents and their tools). */
#include "ops/shape.h"

#define METADATA                                                                                               \
  {                                                                                                            \
    "metadata", MR_F_OBJ | MR_F_NULL | MR_F_PATCH, .item = MR_F_STR                                            \
  }

static const struct mr_field policy[] = {
    {"type", MR_F_STR | MR_F_REQUIRED, .values = "always_allow|always_ask|auto"}};
static const struct mr_shape policy_shape = {policy, 1};

static const struct mr_field config[] = {
    {"name", MR_F_STR, .min = 1, .max = 255},
    {"type", MR_F_STR},
    {"enabled", MR_F_BOOL | MR_F_NULL},
    {"permission_policy", MR_F_OBJ | MR_F_NULL, .of = &policy_shape},
    {"allowed_domains", MR_F_ARR | MR_F_NULL, .item = MR_F_STR, .item_max = 255},
    {"blocked_domains", MR_F_ARR | MR_F_NULL, .item = MR_F_STR, .item_max = 255},
    {"max_content_tokens", MR_F_INT | MR_F_NULL, .min = 1},
    {"user_location", MR_F_OBJ | MR_F_NULL},
    {"url_sources", MR_F_ANY | MR_F_NULL}};
static const struct mr_shape config_shape = {config, sizeof config / sizeof *config};

static const struct mr_field tool[] = {
    {"type", MR_F_STR | MR_F_REQUIRED, .min = 1},
    {"name", MR_F_STR, .min = 1, .max = 128},
    {"description", MR_F_STR},
    {"input_schema", MR_F_OBJ},
    {"mcp_server_name", MR_F_STR, .min = 1, .max = 255},
    {"default_config", MR_F_OBJ | MR_F_NULL, .of = &config_shape},
    {"configs", MR_F_ARR | MR_F_NULL, .max = 256, .of = &config_shape, .item = MR_F_OBJ}};
static const struct mr_shape tool_shape = {tool, sizeof tool / sizeof *tool};

static const struct mr_field server[] = {{"type", MR_F_STR | MR_F_REQUIRED},
                                         {"name", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 255},
                                         {"url", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 2048}};
static const struct mr_shape server_shape = {server, 3};

static const struct mr_field skill[] = {{"type", MR_F_STR | MR_F_REQUIRED, .values = "anthropic|custom"},
                                        {"skill_id", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 256},
                                        {"version", MR_F_STR | MR_F_NULL, .max = 256}};
static const struct mr_shape skill_shape = {skill, 3};

static const struct mr_field model[] = {{"id", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 256},
                                        {"effort", MR_F_STR | MR_F_OBJ | MR_F_NULL},
                                        {"speed", MR_F_STR | MR_F_NULL, .values = "standard|fast"},
                                        {"inference_geo", MR_F_STR | MR_F_NULL, .max = 64}};
static const struct mr_shape model_shape = {model, 4};

#define TOOLS                                                                                                  \
  {"tools", MR_F_ARR | MR_F_NULL, .max = 256, .of = &tool_shape, .item = MR_F_OBJ},                            \
  {                                                                                                            \
    "mcp_servers", MR_F_ARR | MR_F_NULL, .max = 20, .of = &server_shape, .item = MR_F_OBJ                      \
  }

/* What sessions may override has the same fields as the agent itself (agent_with_overrides). */
#define CONFIGURATION                                                                                          \
  {"system", MR_F_STR | MR_F_NULL, .max = 100000}, TOOLS,                                                      \
  {                                                                                                            \
    "skills", MR_F_ARR | MR_F_NULL, .max = 500, .of = &skill_shape, .item = MR_F_OBJ                           \
  }

#define AGENT                                                                                                  \
  {"description", MR_F_STR | MR_F_NULL, .max = 2048}, CONFIGURATION, {"multiagent", MR_F_OBJ | MR_F_NULL},     \
      {"execution_identity", MR_F_OBJ | MR_F_NULL}, METADATA

MR_SHAPE(agents_create, {"name", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 256},
         {"model", MR_F_STR | MR_F_OBJ | MR_F_REQUIRED, .min = 1, .max = 256, .of = &model_shape}, AGENT);
/* null for name and model reaches the domain, which says that they cannot be cleared */
MR_SHAPE(agents_update, {"version", MR_F_INT | MR_F_NULL, .min = 1},
         {"name", MR_F_STR | MR_F_NULL, .min = 1, .max = 256},
         {"model", MR_F_STR | MR_F_OBJ | MR_F_NULL, .min = 1, .max = 256, .of = &model_shape}, AGENT);
MR_SHAPE(agents_retrieve, {"version", MR_F_INT, .min = 1});
MR_SHAPE(agent_ref, {"type", MR_F_STR | MR_F_REQUIRED, .values = "agent|agent_with_overrides"},
         {"id", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 256}, {"version", MR_F_INT | MR_F_NULL, .min = 1},
         {"model", MR_F_STR | MR_F_OBJ | MR_F_NULL, .min = 1, .max = 256, .of = &model_shape}, CONFIGURATION);
/* What a session may change of its agent; that other members cannot be changed is said by the domain. */
MR_SHAPE(agent_change, TOOLS);
