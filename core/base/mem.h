/*
 * mem - memory: the allocator every room uses, and arenas for data that dies together.
 *
 * One struct mr_mem per runtime, passed in, so that a host sees every byte and can refuse; tests
 * fail the Nth allocation through it. Each block carries its size in a small header, so free needs
 * only the pointer. Any thread (the host's function must be callable from any thread).
 * This is the only room that may call malloc.
 */
#ifndef MR_BASE_MEM_H
#define MR_BASE_MEM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "moonrig.h"

struct mr_mem {
  void *(*fn)(void *ud, void *p, size_t old_size, size_t new_size); /* never NULL after init */
  void *ud;
};

void mr_mem_init(struct mr_mem *m, void *(*fn)(void *, void *, size_t, size_t), void *ud);
void *mr_mem_alloc(const struct mr_mem *m, size_t n);            /* NULL when out of memory */
void *mr_mem_zalloc(const struct mr_mem *m, size_t n);           /* zeroed */
void *mr_mem_realloc(const struct mr_mem *m, void *p, size_t n); /* p unchanged on NULL */
void mr_mem_free(const struct mr_mem *m, void *p);               /* NULL allowed */
char *mr_mem_strdup(const struct mr_mem *m, struct mr_str s);    /* NUL-terminated copy */

/* Arena: blocks released all at once. Pointers are 16-byte aligned. One thread at a time. */
struct mr_arena;                                                           /* opaque; owns its blocks */
struct mr_arena *mr_arena_new(const struct mr_mem *m, size_t first_block); /* NULL: no memory */
void *mr_arena_alloc(struct mr_arena *a, size_t n);                        /* zeroed; NULL when out of memory */
struct mr_str mr_arena_str(struct mr_arena *a, struct mr_str s); /* NUL-terminated copy; p NULL on failure */
char *mr_arena_printf(struct mr_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const struct mr_mem *mr_arena_mem(struct mr_arena *a);
void mr_arena_free(struct mr_arena **a);

#endif
