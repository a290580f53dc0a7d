/* no_envd.c - stands in until envd is in the tree: sandboxes cannot start without it. */
#include <stddef.h>
extern const unsigned char mr_helper_envd[];
extern const size_t mr_helper_envd_size;
const unsigned char mr_helper_envd[1] = {0};
const size_t mr_helper_envd_size = 0;
