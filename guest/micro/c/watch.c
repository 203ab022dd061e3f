#include "watch.h"
#include "agent.h"
#include "frame.h"
#include "service.h"

#define WATCHES 64
/* The variant of vmoon-protocol's Watch that is served; its value is the port, 16 bits. */
#define WATCH_PORT 1

static struct {
    struct connection *control; /* NULL when the entry is unused */
    u64 id;
    u32 port;
} watches[WATCHES];
static u32 watches_used; /* entries from here on were never used */

static void watch_begin(struct connection *c, u64 id, const u8 *payload, u32 length)
{
    static const char unsupported[] =
        "backend.unsupported\0the micro guest can wait for ports of echo-server only";
    static const char full[] = "vm.state\0the micro guest can wait for 64 ports at once";
    u32 entry = 0;
    u32 port;

    if (length != 3 || payload[0] != WATCH_PORT) {
        agent_reply(c, id, FRAME_ERROR, unsupported, sizeof(unsupported) - 1);
        return;
    }
    port = load16(payload + 1);
    if (port == AGENT_PORT || service_listener(port) != NULL) {
        agent_reply(c, id, FRAME_DONE, NULL, 0);
        return;
    }
    while (entry < watches_used && watches[entry].control != NULL) {
        entry++;
    }
    if (entry == WATCHES) {
        agent_reply(c, id, FRAME_ERROR, full, sizeof(full) - 1);
        return;
    }
    if (entry == watches_used) {
        watches_used++;
    }
    watches[entry].control = c;
    watches[entry].id = id;
    watches[entry].port = port;
}

static void watch_end(u64 id)
{
    for (u32 i = 0; i < watches_used; i++) {
        if (watches[i].id == id) {
            watches[i].control = NULL;
        }
    }
}

static void watch_opened(u32 port)
{
    for (u32 i = 0; i < watches_used; i++) {
        if (watches[i].control != NULL && watches[i].port == port) {
            struct connection *control = watches[i].control;
            watches[i].control = NULL;
            agent_reply(control, watches[i].id, FRAME_DONE, NULL, 0);
        }
    }
}

static void watch_forget(void)
{
    for (u32 i = 0; i < watches_used; i++) {
        watches[i].control = NULL;
    }
}
