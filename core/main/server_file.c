/* server_file.c - see server_file.h. The file is made new and renamed into place: nobody reads half of it, nor has the
 * old one open, whatever its mode was, when the key goes in. */
#include "main/server_file.h"
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

void mr_server_file_write(struct server_file *f, const char *data, const char *url, const char *key)
{
  struct mr_mem mem;
  struct mr_buf b;
  struct mr_jw w;
  char temp[4096];
  int fd, n;

  snprintf(f->path, sizeof f->path, "%s/server.json", data);
  n = snprintf(temp, sizeof temp, "%s.new", f->path);
  if (n >= (int)sizeof temp) n = 0;
  if (n) unlink(temp); /* of one that crashed: the lock of the directory is ours */
  fd = n ? open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
  if (fd < 0) { /* ":memory:", or a directory that is gone: the other commands need --url then */
    f->path[0] = '\0';
    return;
  }
  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&b, &mem, 4096);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kint(&w, "pid", getpid());
  mr_jw_kc(&w, "url", url);
  mr_jw_kc(&w, "key", key);
  mr_jw_obj_end(&w);
  if (fchmod(fd, 0600) != 0 || write(fd, b.p, b.n) != (ssize_t)b.n || rename(temp, f->path) != 0) {
    fprintf(stderr, "moonrig: %s: not written\n", f->path);
    unlink(temp);
  }
  close(fd);
  mr_buf_free(&b);
}

void mr_server_file_remove(struct server_file *f)
{
  if (f->path[0]) unlink(f->path);
  f->path[0] = '\0';
}

/* Only what the server of this user has written is believed: the directory may be one that others can make, and a key
 * goes where the file says. */
static yyjson_doc *read_own(const char *path)
{
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  struct stat st;
  yyjson_doc *doc = NULL;
  FILE *f;

  if (fd < 0) return NULL;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_mode & 022 ||
      (st.st_uid != geteuid() && geteuid() != 0) || !(f = fdopen(fd, "r"))) {
    close(fd);
    return NULL;
  }
  doc = yyjson_read_fp(f, 0, NULL, NULL);
  fclose(f);
  return doc;
}

bool mr_server_file_read(const char *data, char *url, size_t n, char *key, size_t key_n)
{
  char path[4096];
  yyjson_doc *doc;
  int64_t pid;
  bool alive;

  snprintf(path, sizeof path, "%s/server.json", data);
  doc = read_own(path);
  pid = mr_json_get_int(yyjson_doc_get_root(doc), "pid", 0);
  alive = pid > 1 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
  if (alive) {
    snprintf(url, n, MR_FMT, MR_ARG(mr_json_get_str(yyjson_doc_get_root(doc), "url")));
    snprintf(key, key_n, MR_FMT, MR_ARG(mr_json_get_str(yyjson_doc_get_root(doc), "key")));
  }
  yyjson_doc_free(doc);
  return alive && url[0];
}
