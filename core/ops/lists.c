/* lists.c - shapes of plain lists; limits of `limit` differ per resource and are checked by the domain. */
#include "ops/shape.h"

static const struct mr_field created[] = {{"gt", MR_F_STR, .max = 64},
                                          {"gte", MR_F_STR, .max = 64},
                                          {"lt", MR_F_STR, .max = 64},
                                          {"lte", MR_F_STR, .max = 64}};
const struct mr_shape mr_shape_created = {created, 4};

#define PAGED                                                                                                  \
  {"limit", MR_F_INT},                                                                                         \
  {                                                                                                            \
    "page", MR_F_STR, .max = 512                                                                               \
  }

MR_SHAPE(list_plain, PAGED);
MR_SHAPE(list_archived, PAGED, {"include_archived", MR_F_BOOL});
MR_SHAPE(list_created, PAGED, {"include_archived", MR_F_BOOL},
         {"created_at", MR_F_OBJ, .of = &mr_shape_created});
MR_SHAPE(models_list, {"limit", MR_F_INT}, {"after_id", MR_F_STR, .max = 256},
         {"before_id", MR_F_STR, .max = 256});
MR_SHAPE(keys_create, {"name", MR_F_STR | MR_F_REQUIRED, .min = 1, .max = 128},
         {"environment_id", MR_F_STR | MR_F_NULL, .max = 128});
