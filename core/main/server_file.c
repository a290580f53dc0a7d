/* server_file.c - see server_file.h. */
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
  int fd;

  snprintf(f->path, sizeof f->path, "%s/server.json", data);
  fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
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
  if (write(fd, b.p, b.n) != (ssize_t)b.n) fprintf(stderr, "moonrig: %s: not written\n", f->path);
  close(fd);
  mr_buf_free(&b);
}

void mr_server_file_remove(struct server_file *f)
{
  if (f->path[0]) unlink(f->path);
  f->path[0] = '\0';
}

bool mr_server_file_read(const char *data, char *url, size_t n, char *key, size_t nkey)
{
  char path[4096];
  yyjson_doc *doc;
  int64_t pid;
  bool alive;

  snprintf(path, sizeof path, "%s/server.json", data);
  doc = yyjson_read_file(path, 0, NULL, NULL);
  pid = mr_json_get_int(yyjson_doc_get_root(doc), "pid", 0);
  alive = pid > 1 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
  if (alive) {
    snprintf(url, n, MR_FMT, MR_ARG(mr_json_get_str(yyjson_doc_get_root(doc), "url")));
    snprintf(key, nkey, MR_FMT, MR_ARG(mr_json_get_str(yyjson_doc_get_root(doc), "key")));
  }
  yyjson_doc_free(doc);
  return alive && url[0];
}
