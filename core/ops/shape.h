/*
 * shape - what the input object of an operation may hold, as tables: names, kinds, limits. mr_shape_check
 * walks value and table together and fails at the first wrong field, by its path ("tools[2].name").
 *
 * What it is not for: rules between fields, existence of what an id names, defaults: those are the domain's.
 * Fields that a table does not name are let through, so that newer clients work; with strict they fail.
 */
#ifndef MR_OPS_SHAPE_H
#define MR_OPS_SHAPE_H

#include "base/err.h"
#include "base/json.h"

enum {
  MR_F_STR = 1,
  MR_F_INT = 2,
  MR_F_NUM = 4,
  MR_F_BOOL = 8,
  MR_F_OBJ = 16,
  MR_F_ARR = 32, /* kinds, or-ed */
  MR_F_ANY = 63,
  MR_F_REQUIRED = 64, /* must be there */
  MR_F_NULL = 128,    /* null is allowed */
  MR_F_PATCH = 256    /* values of the object may be null (metadata of an update) */
};

struct mr_shape;
struct mr_field {
  const char *name;
  unsigned kind;             /* MR_F_* */
  int64_t min, max;          /* strings: characters; integers: value; arrays, maps: members. max 0 = none */
  const struct mr_shape *of; /* members of an object, or of each object of an array; NULL = free */
  unsigned item;             /* kinds of array items and map values; 0 = any */
  int64_t item_max;          /* characters of string items; 0 = no limit */
  const char *values;        /* "asc|desc": what a string may be; NULL = anything */
};
struct mr_shape {
  const struct mr_field *fields;
  int n;
};
#define MR_SHAPE(name, ...)                                                                                    \
  static const struct mr_field fields_##name[] = {__VA_ARGS__};                                                \
  const struct mr_shape mr_shape_##name = {fields_##name, sizeof fields_##name / sizeof *fields_##name}

/* MR_OK, or MR_E_INVALID with err.field. v must be an object. */
int mr_shape_check(const struct mr_shape *s, yyjson_val *v, bool strict, struct mr_err *err);

#endif
