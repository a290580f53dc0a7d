/* files.c - input shapes of files (API: resources, files). Over HTTP an upload is multipart: its part `file`
 * gives filename and media_type, other parts are fields of their names. */
#include "ops/shape.h"

MR_SHAPE(files_upload, {"filename", MR_F_STR, .max = 4096}, {"media_type", MR_F_STR, .max = 255},
         {"expires_in_seconds", MR_F_INT, .min = 3600, .max = 7776000});
MR_SHAPE(files_list, {"limit", MR_F_INT}, {"page", MR_F_STR, .max = 512}, {"scope_id", MR_F_STR, .max = 256},
         {"ids", MR_F_ARR, .max = 1000, .item = MR_F_STR, .item_max = 256});
