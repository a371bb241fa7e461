/*
 * The wire between host and guest, shared with guest/ and tests/guest: numbers only, no code, no
 * libc.
 *
 * A frame is a 4-byte big-endian length and that many payload bytes, 1 ≤ length ≤ WIRE_FRAME_MAX.
 * The first payload byte is the kind; the rest is JSON (WIRE_CONTROL) or raw bytes. A longer
 * length, an unknown kind or bad JSON ends the connection. The end of a stream is a frame, never a
 * half-close (Firecracker turns one into a full shutdown).
 *
 * Firecracker: the guest connects to CID 2 port WIRE_PORT_HELLO once at boot and after each
 * restore; the host connects to WIRE_PORT_SERVICE as often as it likes. QEMU (emulated):
 * virtio-serial ports "motte.0" (in the place of the hello connection) and "motte.1"… "motte.N" (in
 * the place of service connections). They have no connections, so the host opens each session with
 * WIRE_MARK = token (WIRE_TOKEN_SIZE bytes from the kernel command line, `motte.token=<hex>`) +
 * nonce (WIRE_NONCE_SIZE random bytes); the guest looks for the token at every position of its
 * input, ends the session before, and answers with the same WIRE_MARK; the host discards everything
 * up to it. The guest sends hello on port 0 after each mark there.
 *
 * Control messages (docs/wire.md has them all):
 *   guest → host  {"id":1,"op":"hello","protocol":1,"instance":"<20>","agent":"…","kernel":"…",
 *                  "generation":0,"boot_ms":412}          answered by {"id":1,"ok":true}
 *   host → guest  {"id":N,"op":"ping"}                     {"id":N,"ok":true,"uptime_ms":…}
 *                 {"id":N,"op":"hello"}                    {"id":N,"ok":true, …the fields of hello}
 *                 {"id":N,"op":"exec","argv":[…],"env":{…},"cwd":"/","user":"root",
 *                  "timeout_ms":…,"stdin":true,
 *                  "pty":true,"rows":24,"cols":80}         {"id":N,"ok":true}, then frames
 *                 WIRE_STDIN (empty = end of input) to the guest, WIRE_STDOUT and WIRE_STDERR from
 * it,
 *                 {"op":"kill"} and {"op":"resize","rows":R,"cols":C} to the guest at any time, and as
 *                 the last frame from it
 *                 {"id":N,"op":"exit","code":0,"timed_out":false,"oom_killed":false,
 *                 "duration_ms":…} or "signal":9 in the place of "code". The connection then
 *                 serves the next request.
 *                 {"id":N,"op":"put","path":"/…","mode":420,"parents":false} and WIRE_STDIN frames as of
 *                 an exec                                  {"id":N,"ok":true,"size":…}
 *                 {"id":N,"op":"get","path":"/…"}          {"id":N,"ok":true,"size":…,"mode":…,
 *                                                           "mtime_ms":…}
 *                 then {"op":"send","offset":0,"length":…} to it, and WIRE_STDOUT frames from it (empty
 *                 = end)
 *                 {"id":N,"op":"remove","path":"/…"}       {"id":N,"ok":true}
 *                 {"id":N,"op":"restore","instance":"<20>","generation":G,"wall_ms":…,
 *                  "uptime_ms":…,"entropy":"<hex>","hostname":"…","machine_id":"<32 hex>",
 *                  "token":"<32 hex>"}
 *                                                          {"id":N,"ok":true,"clock_skew_ms":…},
 *                 then the agent begins anew and says hello.
 *   refusal       {"id":N,"ok":false,"error":{"code":"…","message":"…"}}
 * Ids grow within a connection and a direction; a reply with an unknown id ends the connection.
 */
#ifndef MOTTE_VSOCK_WIRE_H
#define MOTTE_VSOCK_WIRE_H

enum {
    WIRE_PROTOCOL = 1,
    WIRE_FRAME_MAX = 65536, /* payload, kind included */
    WIRE_HEADER_SIZE = 4,
    WIRE_PORT_SERVICE = 1024,
    WIRE_PORT_HELLO = 1025,
    WIRE_TOKEN_SIZE = 16,
    WIRE_NONCE_SIZE = 8,
    WIRE_SERIAL_PORTS = 8, /* "motte.0" … "motte.7" */
    WIRE_GUEST_CID = 3,
};

enum wire_kind {
    WIRE_CONTROL = 'J',
    WIRE_STDIN = '0',
    WIRE_STDOUT = '1',
    WIRE_STDERR = '2',
};

#endif
