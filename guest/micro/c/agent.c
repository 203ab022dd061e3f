#include "agent.h"
#include "clock.h"
#include "exec.h"
#include "files.h"
#include "frame.h"
#include "output.h"
#include "power.h"
#include "random.h"
#include "watch.h"

#define REDIAL_FIRST 10000000ul /* nanoseconds */
#define REDIAL_LAST 1000000000ul

/* The payload of FRAME_LIFE: epoch, wall clock in nanoseconds since 1970, 32 bytes of entropy. */
enum { LIFE_WALL = 8, LIFE_ENTROPY = 16 };

static u64 redial_after = REDIAL_FIRST;

static void redial(struct timer *timer)
{
    (void)timer;
    agent_dial();
}

static struct timer redial_timer = {.fire = redial};

static void agent_dial(void) { connection_dial(AGENT_PORT, KIND_CONTROL); }

static void agent_control_lost(void)
{
    watch_forget();
    timer_start(&redial_timer, redial_after);
    if (redial_after < REDIAL_LAST) {
        redial_after *= 2;
    }
}

static void agent_control_open(struct connection *c)
{
    static const struct {
        u32 version;
        u32 reserved;
        char guest[5];
    } ready = {PROTOCOL_VERSION, 0, {'m', 'i', 'c', 'r', 'o'}};

    redial_after = REDIAL_FIRST;
    output_open(c, 0);
    output_frame(FRAME_READY, &ready, 13);
    output_send();
}

static void agent_reply(struct connection *c, u64 id, u32 kind, const void *payload, u32 length)
{
    output_open(c, id);
    output_frame(kind, payload, length);
    output_send();
}

static void agent_life(const u8 *payload)
{
    random_mix(payload + LIFE_ENTROPY);
    clock_set_wall(load64(payload + LIFE_WALL));
}

static void life(struct connection *c, u64 id, const u8 *payload, u32 length)
{
    if (length < FRAME_LIFE_LENGTH) {
        return;
    }
    agent_life(payload);
    if (c->kind == KIND_CONTROL) {
        agent_reply(c, id, FRAME_LIFE_DONE, payload, 8);
    }
}

static COLD NORETURN void shut_down(struct connection *c, u64 id, bool again)
{
    agent_reply(c, id, FRAME_DONE, NULL, 0);
    vsock_drain();
    if (again) {
        reboot();
    }
    power_off();
}

static COLD void control_frame(struct connection *c, u32 kind, u64 id, const u8 *payload, u32 length)
{
    switch (kind) {
    case FRAME_SHUTDOWN:
        shut_down(c, id, length != 0 && payload[0] == 1);
    case FRAME_WATCH:
        watch_begin(c, id, payload, length);
        break;
    case FRAME_UNWATCH:
        watch_end(id);
        break;
    default:
        break;
    }
}

static void agent_frame(struct connection *c, u32 kind, u64 id, const u8 *payload, u32 length)
{
    if (likely(kind == FRAME_EXEC && c->kind == KIND_COMMAND)) {
        exec_run(c, id, payload, length);
    } else if (kind == FRAME_LIFE) {
        life(c, id, payload, length);
    } else if (kind == FRAME_SIGNAL && c->exec != EXEC_NONE && c->exec_id == id && length >= 4) {
        u32 signal = load32(payload);
        if (signal != 0) {
            exec_kill(c, signal);
        }
    } else if (kind >= FRAME_STORE && kind <= FRAME_STORE_LEAVE && c->kind == KIND_COMMAND) {
        file_frame(c, kind, id, payload, length);
    } else if (c->kind == KIND_CONTROL) {
        control_frame(c, kind, id, payload, length);
    }
    /* Anything else is of a later protocol or an earlier life. */
}
