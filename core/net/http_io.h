/*
 * http_io - bytes in and out of one accepted connection, plain or TLS (1.2 and newer). No signal is ever
 * raised: all writes are sends with MSG_NOSIGNAL, below OpenSSL too. Nothing blocks, nothing is buffered
 * here but what OpenSSL holds of one record. Loop thread, called by http_conn.c.
 */
#ifndef MR_NET_HTTP_IO_H
#define MR_NET_HTTP_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/mem.h"

struct mr_http_tls; /* a listener's certificate and key */
struct mr_http_io {
  int fd;
  bool want_write; /* TLS: a read waits until something could be written */
  void *ssl;       /* NULL: plain */
  struct mr_http_tls *tls;
};

enum { MR_IO_AGAIN = -1, MR_IO_ERROR = -2 };

/* Takes the descriptor. tls NULL: plain. MR_E_NOMEM leaves the descriptor to the caller. */
int mr_http_io_init(struct mr_http_io *io, int fd, struct mr_http_tls *tls);
int64_t mr_http_io_read(struct mr_http_io *io, char *buf, size_t n); /* 0: end */
/* After MR_IO_AGAIN the next write must begin with the same bytes (and may have more). */
int64_t mr_http_io_write(struct mr_http_io *io, const char *buf, size_t n);
int64_t mr_http_io_writev(struct mr_http_io *io, const struct iovec *v, int n); /* plain only */
bool mr_http_io_handshake(const struct mr_http_io *io);                         /* TLS: is it still going on? */
bool mr_http_io_hung_up(const struct mr_http_io *io);     /* the peer neither sends nor reads any more */
int mr_http_io_unsent(const struct mr_http_io *io);       /* bytes taken that the peer has not got yet */
void mr_http_io_shutdown(struct mr_http_io *io);          /* nothing more will be written */
void mr_http_io_close(struct mr_http_io *io, bool reset); /* reset: what waits in the kernel is dropped */

/* Loads a PEM chain and its key; the error names the file. */
int mr_http_tls_new(struct mr_http_tls **out, const struct mr_mem *m, const char *cert, const char *key,
                    struct mr_err *err);
void mr_http_tls_free(struct mr_http_tls **t); /* gives up one reference; clears the pointer */

#endif
