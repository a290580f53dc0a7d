/*
 * server_file - <data>/server.json (mode 0600): where the server of a data directory listens, and a key that it
 * takes as long as it lives, so that `moonrig chat`, `key`, `reload` and `api` find it and need none of their own.
 * Removed when it ends; a left-over of a crash is seen by its pid.
 */
#ifndef MR_MAIN_SERVER_FILE_H
#define MR_MAIN_SERVER_FILE_H

#include "main/main_t.h"

struct server_file {
  char path[4096];
};

void mr_server_file_write(struct server_file *f, const char *data, const char *url, const char *key);
void mr_server_file_remove(struct server_file *f);
/* The URL of the live server of data, and a key for it ("" when there is none); or false. */
bool mr_server_file_read(const char *data, char *url, size_t n, char *key, size_t key_n);

#endif
