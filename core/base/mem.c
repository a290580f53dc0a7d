/* mem.c - blocks with their size in front, and arenas; see mem.h. */
#include "base/mem.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MR_MEM_HEAD = 16, MR_ARENA_ALIGN = 16, MR_ARENA_BLOCK_MAX = 1 << 20 };

static void *mem_system(void *ud, void *p, size_t old_size, size_t new_size)
{
  (void)ud;
  (void)old_size;
  if (new_size == 0) {
    free(p);
    return NULL;
  }
  return realloc(p, new_size);
}

void mr_mem_init(struct mr_mem *m, void *(*fn)(void *, void *, size_t, size_t), void *ud)
{
  m->fn = fn ? fn : mem_system;
  m->ud = fn ? ud : NULL;
}

static size_t mem_size(const void *p)
{
  size_t n;
  memcpy(&n, (const char *)p - MR_MEM_HEAD, sizeof n);
  return n;
}

void *mr_mem_realloc(const struct mr_mem *m, void *p, size_t n)
{
  char *base = p ? (char *)p - MR_MEM_HEAD : NULL;
  size_t old = p ? mem_size(p) + MR_MEM_HEAD : 0;

  if (n > SIZE_MAX - MR_MEM_HEAD) return NULL;
  base = m->fn(m->ud, base, old, n + MR_MEM_HEAD);
  if (!base) return NULL;
  memcpy(base, &n, sizeof n);
  return base + MR_MEM_HEAD;
}

void *mr_mem_alloc(const struct mr_mem *m, size_t n)
{
  return mr_mem_realloc(m, NULL, n);
}

void *mr_mem_zalloc(const struct mr_mem *m, size_t n)
{
  void *p = mr_mem_alloc(m, n);
  if (p) memset(p, 0, n);
  return p;
}

void mr_mem_free(const struct mr_mem *m, void *p)
{
  if (p) m->fn(m->ud, (char *)p - MR_MEM_HEAD, mem_size(p) + MR_MEM_HEAD, 0);
}

char *mr_mem_strdup(const struct mr_mem *m, struct mr_str s)
{
  char *p = mr_mem_alloc(m, s.n + 1);
  if (!p) return NULL;
  if (s.n) memcpy(p, s.p, s.n);
  p[s.n] = '\0';
  return p;
}

/* ---- arenas: a chain of blocks, newest first ---- */

struct arena_block {
  struct arena_block *next;
  size_t used, cap;
};

struct mr_arena {
  const struct mr_mem *mem;
  struct arena_block *head;
  size_t next_cap;
};

static size_t align_up(size_t n)
{
  return (n + MR_ARENA_ALIGN - 1) & ~(size_t)(MR_ARENA_ALIGN - 1);
}

static char *block_data(struct arena_block *b)
{
  return (char *)b + align_up(sizeof *b);
}

static struct arena_block *arena_grow(struct mr_arena *a, size_t need)
{
  size_t cap = a->next_cap > need ? a->next_cap : need;
  struct arena_block *b;

  if (cap > SIZE_MAX - align_up(sizeof *b)) return NULL;
  b = mr_mem_alloc(a->mem, align_up(sizeof *b) + cap);
  if (!b) return NULL;
  b->used = 0;
  b->cap = cap;
  b->next = a->head;
  a->head = b;
  if (a->next_cap < MR_ARENA_BLOCK_MAX) a->next_cap *= 2;
  return b;
}

struct mr_arena *mr_arena_new(const struct mr_mem *m, size_t first_block)
{
  struct mr_arena *a = mr_mem_zalloc(m, sizeof *a);
  if (!a) return NULL;
  a->mem = m;
  a->next_cap = align_up(first_block < 64 ? 64 : first_block);
  if (!arena_grow(a, 0)) {
    mr_mem_free(m, a);
    return NULL;
  }
  return a;
}

static void *arena_room(struct mr_arena *a, size_t n)
{
  struct arena_block *b;
  void *p;

  if (!a || n > SIZE_MAX / 2) /* an arena that could not be made has no room */
    return NULL;
  b = a->head;
  n = align_up(n ? n : 1);
  if (b->cap - b->used < n && !(b = arena_grow(a, n))) return NULL;
  p = block_data(b) + b->used;
  b->used += n;
  return p;
}

void *mr_arena_alloc(struct mr_arena *a, size_t n)
{
  void *p = arena_room(a, n);
  return p ? memset(p, 0, n) : NULL;
}

struct mr_str mr_arena_str(struct mr_arena *a, struct mr_str s)
{
  char *p = arena_room(a, s.n + 1);
  if (!p) return mr_str_n(NULL, 0);
  if (s.n) memcpy(p, s.p, s.n);
  p[s.n] = '\0';
  return mr_str_n(p, s.n);
}

char *mr_arena_printf(struct mr_arena *a, const char *fmt, ...)
{
  va_list ap, again;
  int n;
  char *p = NULL;

  va_start(ap, fmt);
  va_copy(again, ap);
  n = vsnprintf(NULL, 0, fmt, ap);
  if (n >= 0 && (p = mr_arena_alloc(a, (size_t)n + 1))) vsnprintf(p, (size_t)n + 1, fmt, again);
  va_end(again);
  va_end(ap);
  return p;
}

const struct mr_mem *mr_arena_mem(struct mr_arena *a)
{
  return a->mem;
}

void mr_arena_free(struct mr_arena **ap)
{
  struct mr_arena *a = *ap;
  if (!a) return;
  for (struct arena_block *b = a->head, *next; b; b = next) {
    next = b->next;
    mr_mem_free(a->mem, b);
  }
  mr_mem_free(a->mem, a);
  *ap = NULL;
}
