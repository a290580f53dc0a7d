/* api_help.c - `moonrig api --list` and `--help OPERATION`: what operations there are, and what one takes, from the same
 * tables that check the input (ops/shape.h). */
#include "main/api.h"

enum { DEPTH_MAX = 4 };

int mr_api_list(bool json)
{
  const struct mr_opdef *op;

  for (int i = 0; (op = mr_op_at(i)); i++)
    if (json)
      printf("{\"name\":\"%s\",\"verb\":\"%s\",\"path\":\"%s\",\"implemented\":%s}\n", op->name, op->verb,
             op->path, op->flags & MR_OP_TODO ? "false" : "true");
    else
      printf("%-34s %-6s %s%s\n", op->name, op->verb, op->path,
             op->flags & MR_OP_TODO ? "   (not implemented yet)" : "");
  return EXIT_OK;
}

static void print_kinds(unsigned kind)
{
  static const char *const names[] = {"string", "integer", "number", "true or false", "object", "array"};
  const char *sep = "";

  if (kind == MR_F_ANY) {
    printf("any value");
    return;
  }
  if (kind & MR_F_INT) kind &= ~(unsigned)MR_F_NUM; /* every integer is a number */
  for (int i = 0; i < 6; i++)
    if (kind & (1u << i)) {
      printf("%s%s", sep, names[i]);
      sep = " or ";
    }
}

static void print_limits(const struct mr_field *f)
{
  const char *what = f->kind & MR_F_STR ? " characters" : f->kind & (MR_F_ARR | MR_F_OBJ) ? " members" : "";

  if (f->min && f->max)
    printf(", %lld to %lld%s", (long long)f->min, (long long)f->max, what);
  else if (f->max)
    printf(", at most %lld%s", (long long)f->max, what);
  else if (f->min)
    printf(", at least %lld%s", (long long)f->min, what);
  if (f->values) printf(": %s", f->values);
}

static void print_shape(const struct mr_shape *s, int depth)
{
  for (int i = 0; i < s->n; i++) {
    const struct mr_field *f = &s->fields[i];
    int used = printf("%*s%s", 2 * depth, "", f->name);
    printf("%*s", used < 26 ? 26 - used : 1, "");
    print_kinds(f->kind & MR_F_ANY);
    if (f->kind & MR_F_ARR && f->item) {
      printf(" of ");
      print_kinds(f->item);
    }
    if (f->kind & MR_F_NULL) printf(" or null");
    if (f->kind & MR_F_REQUIRED) printf(", required");
    print_limits(f);
    printf("\n");
    if (f->of && depth < DEPTH_MAX) print_shape(f->of, depth + 1);
  }
}

static void print_op(const struct mr_opdef *op)
{
  static const char *const gives[] = {"JSON", "a stream of events, one a line", "JSON", "a file (--file PATH)"};
  struct mr_str rest = mr_str_c(op->path + 1);
  bool query = strcmp(op->verb, "POST") != 0;

  printf("%s: %s %s%s\n", op->name, op->verb, op->path, op->flags & MR_OP_TODO ? " (not implemented yet)" : "");
  while (rest.p) {
    struct mr_str seg = mr_str_split(&rest, '/');
    if (seg.n < 3 || seg.p[0] != '{') continue;
    printf("  %-24.*sstring, required (of the path)\n", (int)seg.n - 2, seg.p + 1);
  }
  if (op->in->n == 0 && op->kind != MR_OP_BODY_IN)
    printf("  (no fields of %s)\n", query ? "a query" : "a body");
  print_shape(op->in, 1);
  if (op->kind == MR_OP_BODY_IN) printf("and the file to send: --file PATH\n");
  printf("gives %s\n", gives[op->kind]);
}

int mr_api_help(int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    const struct mr_opdef *op = mr_op_find(mr_str_c(argv[i]));
    if (argv[i][0] == '-') continue;
    if (!op) {
      fprintf(stderr, "moonrig: no such operation: %s (moonrig api --list names them)\n", argv[i]);
      return EXIT_USAGE;
    }
    print_op(op);
    return EXIT_OK;
  }
  return -1;
}
