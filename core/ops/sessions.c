/* sessions.c - input shapes of sessions, their events, resources and threads (API: sessions). What a single
 * event may hold depends on its type and on the session's state: agent/events.c checks that. */
#include "ops/shape.h"

extern const struct mr_shape mr_shape_agent_ref, mr_shape_agent_change, mr_shape_created;

#define METADATA                                                                                               \
  {                                                                                                            \
    "metadata", MR_F_OBJ | MR_F_NULL | MR_F_PATCH, .item = MR_F_STR                                            \
  }
#define PAGED                                                                                                  \
  {"limit", MR_F_INT},                                                                                         \
  {                                                                                                            \
    "page", MR_F_STR, .max = 512                                                                               \
  }

static const struct mr_field event[] = {{"type", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 128},
                                        {"content", MR_F_ARR | MR_F_NULL, .max = 10000, .item = MR_F_OBJ},
                                        {"session_thread_id", MR_F_STR | MR_F_NULL, .max = 256},
                                        {"tool_use_id", MR_F_STR, .max = 256},
                                        {"custom_tool_use_id", MR_F_STR, .max = 256},
                                        {"result", MR_F_STR, .max = 64},
                                        {"deny_message", MR_F_STR | MR_F_NULL, .max = 10000},
                                        {"is_error", MR_F_BOOL | MR_F_NULL}};
static const struct mr_shape event_shape = {event, sizeof event / sizeof *event};

static const struct mr_field resource[] = {
    {"type", MR_F_STR | MR_F_REQUIRED, .values = "file|github_repository|memory_store"},
    {"file_id", MR_F_STR, .min = 1, .max = 256},
    {"mount_path", MR_F_STR | MR_F_NULL, .max = 1024}};
static const struct mr_shape resource_shape = {resource, 3};

MR_SHAPE(sessions_create,
         {"agent", MR_F_STR | MR_F_OBJ | MR_F_REQUIRED, .min = 1, .max = 256, .of = &mr_shape_agent_ref},
         {"environment_id", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 256},
         {"title", MR_F_STR | MR_F_NULL, .max = 512}, METADATA,
         {"resources", MR_F_ARR | MR_F_NULL, .max = 500, .of = &resource_shape, .item = MR_F_OBJ},
         {"vault_ids", MR_F_ARR | MR_F_NULL, .max = 50, .item = MR_F_STR, .item_max = 256},
         {"initial_events", MR_F_ARR | MR_F_NULL, .max = 50, .of = &event_shape, .item = MR_F_OBJ},
         {"budget", MR_F_OBJ | MR_F_NULL});
MR_SHAPE(sessions_update, {"title", MR_F_STR | MR_F_NULL, .max = 512}, METADATA,
         {"agent", MR_F_OBJ | MR_F_NULL, .of = &mr_shape_agent_change}, {"vault_ids", MR_F_ANY | MR_F_NULL},
         {"budget", MR_F_OBJ | MR_F_NULL});
MR_SHAPE(sessions_list, PAGED, {"order", MR_F_STR, .values = "asc|desc"}, {"agent_id", MR_F_STR, .max = 256},
         {"agent_version", MR_F_INT, .min = 1}, {"deployment_id", MR_F_STR, .max = 256},
         {"memory_store_id", MR_F_STR, .max = 256}, {"include_archived", MR_F_BOOL},
         {"created_at", MR_F_OBJ, .of = &mr_shape_created},
         {"statuses", MR_F_ARR, .max = 16, .item = MR_F_STR, .item_max = 32});

MR_SHAPE(sessions_events_send,
         {"events", MR_F_ARR | MR_F_REQUIRED, .min = 1, .max = 1000, .of = &event_shape, .item = MR_F_OBJ});
MR_SHAPE(sessions_events_list, PAGED, {"order", MR_F_STR, .values = "asc|desc"},
         {"created_at", MR_F_OBJ, .of = &mr_shape_created},
         {"types", MR_F_ARR, .max = 100, .item = MR_F_STR, .item_max = 128});
/* after: our extension, a log position as in the stream's id lines, or the id of an event; what follows it is sent
 * first */
MR_SHAPE(sessions_events_stream, {"event_deltas", MR_F_ARR, .max = 1000, .item = MR_F_STR, .item_max = 64},
         {"after", MR_F_INT | MR_F_STR});

MR_SHAPE(sessions_resources_add,
         {"type", MR_F_STR | MR_F_REQUIRED, .values = "file|github_repository|memory_store"},
         {"file_id", MR_F_STR, .min = 1, .max = 256}, {"mount_path", MR_F_STR | MR_F_NULL, .max = 1024});
MR_SHAPE(sessions_resources_update, {"authorization_token", MR_F_STR, .max = 4096});
MR_SHAPE(sessions_threads_list, PAGED, {"statuses", MR_F_ARR, .max = 16, .item = MR_F_STR, .item_max = 32});

/* Our extensions. Over HTTP an import is multipart like an upload of a file, whose filename and media_type it ignores. */
MR_SHAPE(sessions_fork, {"event_id", MR_F_STR, .min = 1, .max = 256},
         {"environment_id", MR_F_STR, .min = 1, .max = 256}, {"title", MR_F_STR | MR_F_NULL, .max = 512},
         METADATA, {"workspace", MR_F_BOOL});
MR_SHAPE(sessions_export, {"workspace", MR_F_BOOL});
MR_SHAPE(sessions_import, {"filename", MR_F_STR, .max = 4096}, {"media_type", MR_F_STR, .max = 255},
         {"environment_id", MR_F_STR, .min = 1, .max = 256}, {"title", MR_F_STR, .max = 512});
