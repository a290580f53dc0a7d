/*
 * new.c - `moonrig new NAME`: a directory with an agent, a tool, a hook and tests that runs offline at once. The
 * files are those of lua/new, embedded by the build; @NAME@ in them becomes the name.
 *
 * Invariant: nothing that exists is written over.
 */
#include "main/settings.h"
#include "base/buf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 1 << 20 };

struct mr_file {
  const char *name;
  const unsigned char *p;
  size_t n;
};
extern const struct mr_file mr_new_files[]; /* ends with name NULL */

static int failed(const char *path)
{
  fprintf(stderr, "moonrig new: %s: %s\n", path, strerror(errno));
  return EXIT_FAILED;
}

/* Nothing there, or a directory with nothing in it. */
static int check_free(const char *dir)
{
  DIR *d = opendir(dir);
  struct dirent *e;
  bool empty = true;

  if (!d) return errno == ENOENT ? EXIT_OK : failed(dir);
  while ((e = readdir(d)) != NULL)
    if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) empty = false;
  closedir(d);
  if (empty) return EXIT_OK;
  fprintf(stderr, "moonrig new: %s is not empty; give another name, or --dir\n", dir);
  return EXIT_FAILED;
}

static int make_dirs(char *path)
{
  for (char *p = path + 1; *p; p++) {
    int rc;
    if (*p != '/') continue;
    *p = '\0';
    rc = mkdir(path, 0777);
    *p = '/';
    if (rc != 0 && errno != EEXIST) return failed(path);
  }
  return EXIT_OK;
}

static void fill(struct mr_buf *b, struct mr_str text, const char *name)
{
  static const char mark[] = "@NAME@";
  const char *at;

  while (text.n && (at = memmem(text.p, text.n, mark, sizeof mark - 1)) != NULL) {
    mr_buf_add(b, text.p, (size_t)(at - text.p));
    mr_buf_c(b, name);
    text.n -= (size_t)(at - text.p) + sizeof mark - 1;
    text.p = at + sizeof mark - 1;
  }
  mr_buf_str(b, text);
}

static int write_file(const char *dir, const struct mr_file *f, const char *name)
{
  struct mr_mem mem;
  struct mr_buf b;
  char path[PATH_MAX];
  const char *as = strcmp(f->name, "gitignore") == 0 ? ".gitignore" : f->name;
  int fd = -1, status;

  if (snprintf(path, sizeof path, "%s/%s", dir, as) >= (int)sizeof path) {
    errno = ENAMETOOLONG;
    return failed(dir);
  }
  status = make_dirs(path);
  if (status) return status;
  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&b, &mem, FILE_MAX);
  fill(&b, (struct mr_str){(const char *)f->p, f->n}, name);
  fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0 || write(fd, b.p, b.n) != (ssize_t)b.n) status = failed(path);
  if (fd >= 0) close(fd);
  mr_buf_free(&b);
  return status;
}

static bool good_name(const char *name)
{
  size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");
  return n > 0 && n <= 64 && !name[n] && name[0] != '.' && name[0] != '-';
}

static int new (int argc, char **argv)
{
  struct settings s;
  const char *dir;
  int status = mr_settings_read(&s, &mr_cmd_new, TAKES_NEW, argc, argv);

  if (status) return status;
  if (s.npaths != 1) return mr_main_usage(&mr_cmd_new, "one name");
  if (!good_name(s.paths[0]))
    return mr_main_usage(&mr_cmd_new,
                         "\"%s\" is not a name: letters, digits, _ - and ., at most 64; --dir says where",
                         s.paths[0]);
  dir = s.dir ? s.dir : s.paths[0];
  status = check_free(dir);
  for (const struct mr_file *f = mr_new_files; f->name && status == EXIT_OK; f++)
    status = write_file(dir, f, s.paths[0]);
  if (status == EXIT_OK)
    printf(
        "%s is ready, and needs no key:\n\n"
        "  cd %s\n"
        "  moonrig serve --watch .    # then, in a second terminal of this directory:\n"
        "  moonrig chat               # say \"roll 3\", then edit agents/dice/tools/roll.lua and roll again\n"
        "  moonrig test\n",
        s.paths[0], dir);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_new = {
    "new", "NAME [--dir DIR]", "make a directory with an agent, a tool and tests, that runs offline at once",
    "  --dir DIR     where (default: a directory of that name, here)\n", new};
