/*
 * server_file - <data>/server.json (mode 0600): where the server of a data directory listens, so that
 * `moonrig chat`, `key`, `reload` and `api` find it, and a key that it takes. Removed when it ends; a left-over of a crash is seen by its pid.
 */
#ifndef MR_MAIN_SERVER_FILE_H
#define MR_MAIN_SERVER_FILE_H

#include "main/main_t.h"

struct server_file {
  char path[4096];
};

void mr_server_file_write(struct server_file *f, const char *data, const char *url, const char *key);
void mr_server_file_remove(struct server_file *f);
/* The URL of the live server of data, and its key ("" when it has none); or false. */
bool mr_server_file_read(const char *data, char *url, size_t n, char *key, size_t nkey);

#endif
