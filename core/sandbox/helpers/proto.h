/*
 * proto - what the server and envd say to each other, and how envd is started. Read by the launcher,
 * by envd and by the driver in sandbox/local; it holds constants and the frame header, no code beyond.
 *
 * Start. envd is exec'd as PID 1 of a PID namespace (bwrap --as-pid-1) with argv `envd CONFIG`, an empty
 * environment and exactly: fd 3, an already listening unix SOCK_STREAM socket; fd 4, the start report (one
 * line "ready", or one line saying why not; then it is closed). fds 0-2 may be anything or closed. Inside it
 * is uid 1000 without capabilities; / is read-only, /proc is the namespace's own, HOME and cwd are
 * MR_ENVD_HOME, /tmp is a sized tmpfs, and MR_ENVD_RUN is a tmpfs of its own of 4 MiB, mode 0700, owned by
 * that uid (bwrap: --perms 0700 --size 4194304 --tmpfs /run/moonrig): the shell's pipes live there, out of
 * the reach of a full /tmp. When it is missing envd makes a directory in /tmp instead.
 *
 * CONFIG is a JSON object; every member is optional:
 *   proto         [min,max] of the server
 *   orphan_ttl_s  exit when nobody is attached for so long (300)
 *   home, run     other places for MR_ENVD_HOME and MR_ENVD_RUN
 *   write         directories that the payload may write (MR_ENVD_HOME, /tmp, MR_ENVD_OUTPUTS)
 *   read_only     directories named as read-only in errors (MR_ENVD_UPLOADS)
 *   nproc         processes and threads that the payload may have (as many as envd)
 *   disk_max, files_max   bytes, and files and directories, that home and MR_ENVD_OUTPUTS may have (no limit)
 *   env           object of strings: more environment variables for the payload
 *   bare          true: not PID 1, in no namespace of its own; it looks after what descends from it (false)
 *   proxy_port    listen there on 127.0.0.1 for clients of the server's egress proxy (none)
 *   bash_timeout_ms, file_timeout_ms   defaults of the tools (120000, 60000)
 *
 * Frames, both ways: u32 little-endian length of what follows, then one JSON object, at most
 * MR_ENVD_FRAME_MAX bytes. A frame that is longer, empty or no JSON object ends the connection.
 *
 * envd at connect:  {"t":"hello","proto":[min,max],"landlock":ABI (0 = not in force),"seccomp":true,
 *                    "running":N,"kept":N}
 * server, first:    {"t":"attach","proto":N}        replaces whoever was attached; nothing answers it.
 *                   From version 2 on the first byte of this frame may carry one descriptor: the egress channel.
 * server:           {"t":"call","id":ID,"name":"bash|read|write|edit|glob|grep","input":{..},"timeout_ms":N}
 *                   {"t":"status","id":ID}  {"t":"cancel","id":ID}  {"t":"shutdown"}
 * instead of attach: {"t":"freeze","ms":N}     (3) stops every process until this connection ends, at most N ms;
 *                   one at a time. Calls wait meanwhile, and their time does not run. Answered, when all stand still,
 *                   by {"t":"frozen"}. A cancel ends the freeze. Refused with bare.
 * envd:             {"t":"accepted","id":ID}        it is known and runs or waits: an answer will follow (to a call
 *                                                   that is answered at once the answer alone comes)
 *                   {"t":"result","id":ID,"content":[blocks],"is_error":bool}
 *                   {"t":"cancelled","id":ID}       it was cancelled; that is its answer
 *                   {"t":"unknown","id":ID}         to status and cancel: that id was never received
 *                   {"t":"error","message":TEXT}    then the connection is closed
 *
 * An id (1 to MR_ENVD_ID_MAX bytes) is started at most once. A second call, or a status, of a known id
 * gives its answer again, or accepted and later the answer. Answers are kept, newest MR_ENVD_KEEP_CALLS and
 * at most MR_ENVD_KEEP_BYTES of them; an id whose answer had to go is answered with an error result.
 * Answers go to the attached connection, and only for ids that it asked for. bash calls run one after the
 * other, the other tools beside them. shutdown ends envd and with it every process of the namespace.
 *
 * The egress channel is a SOCK_SEQPACKET socket. For each client of proxy_port envd sends one byte and gets, in
 * order, one byte for each: with a descriptor, a stream to the proxy that envd relays the client's bytes to and
 * from; without one, there is none to be had. Descriptors only ever go from the server to envd. Without a channel,
 * and once it is closed, clients are told that the proxy is away (503).
 */
#ifndef MR_SANDBOX_PROTO_H
#define MR_SANDBOX_PROTO_H

#include <stdint.h>

#define MR_ENVD_PROTO_MIN 1
#define MR_ENVD_PROTO_MAX 3

#define MR_ENVD_PROTO_EGRESS 2 /* from this version on attach may carry the egress channel */
#define MR_ENVD_PROTO_FREEZE 3 /* the first with freeze */

#define MR_ENVD_FD_LISTEN 3
#define MR_ENVD_FD_REPORT 4
#define MR_ENVD_READY     "ready\n"

#define MR_ENVD_HOME     "/workspace"
#define MR_ENVD_SESSION  "/mnt/session"
#define MR_ENVD_UPLOADS  MR_ENVD_SESSION "/uploads"
#define MR_ENVD_OUTPUTS  MR_ENVD_SESSION "/outputs"
#define MR_ENVD_RUN      "/run/moonrig"
#define MR_ENVD_RUN_SIZE (4 << 20)

#define MR_ENVD_HEADER     4
#define MR_ENVD_FRAME_MAX  (32u << 20)
#define MR_ENVD_ID_MAX     256
#define MR_ENVD_KEEP_CALLS 256
#define MR_ENVD_KEEP_BYTES (32u << 20)

static inline void mr_envd_header_put(unsigned char h[MR_ENVD_HEADER], uint32_t n)
{
  for (int i = 0; i < MR_ENVD_HEADER; i++)
    h[i] = (unsigned char)(n >> 8 * i);
}

static inline uint32_t mr_envd_header_get(const unsigned char h[MR_ENVD_HEADER])
{
  return (uint32_t)h[0] | (uint32_t)h[1] << 8 | (uint32_t)h[2] << 16 | (uint32_t)h[3] << 24;
}

#endif
