/*
 * http_io - bytes in and out of one accepted connection, plain or TLS. No signal is ever raised: all writes
 * are sends with MSG_NOSIGNAL, below OpenSSL too.
 */
#ifndef MR_NET_HTTP_IO_H
#define MR_NET_HTTP_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"
#include "base/mem.h"

struct mr_http_tls;                      /* a listener's certificate and key */
struct mr_http_io { int fd; void *ssl; struct mr_http_tls *tls; bool want_write; };

enum { MR_IO_AGAIN = -1, MR_IO_ERROR = -2 };

/* Takes the descriptor. tls NULL: plain. MR_E_NOMEM leaves the descriptor to the caller. */
int mr_http_io_init(struct mr_http_io *io, int fd, struct mr_http_tls *tls);
int64_t mr_http_io_read(struct mr_http_io *io, char *buf, size_t n);        /* 0: end */
int64_t mr_http_io_write(struct mr_http_io *io, const char *buf, size_t n);
void mr_http_io_shutdown(struct mr_http_io *io); /* nothing more will be written */
void mr_http_io_close(struct mr_http_io *io);

/* Loads a PEM chain and its key; the error names the file. */
int mr_http_tls_new(struct mr_http_tls **out, const struct mr_mem *m, const char *cert, const char *key,
                    struct mr_err *err);
void mr_http_tls_free(struct mr_http_tls **t); /* gives up one reference; clears the pointer */

#endif
