#include "main/main_t.h"
static int cmd_new(int argc, char **argv) { (void)argc; (void)argv; return EXIT_OK; }
const struct command mr_cmd_new = {"new", "NAME", "x", "", cmd_new};
