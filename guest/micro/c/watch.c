#include "watch.h"
#include "agent.h"
#include "frame.h"
#include "memory.h"
#include "output.h"
#include "service.h"

#define WATCHES 64
#define NAMES 64

/* The variants of vmoon-protocol's Watch that are served: a port of 16 or 32 bits, and a name. */
enum watch_kind {
    WATCH_PORT = 1,
    WATCH_READY = 8,
};

struct name {
    u8 length;
    u8 text[READY_LENGTH];
};

struct watch {
    struct connection *control; /* NULL when the entry is unused */
    u64 id;
    u32 kind;
    u32 port;
    struct name name;
};

LARGE static struct watch watches[WATCHES];
static u32 watches_used; /* entries from here on were never used */

LARGE static struct name names[NAMES]; /* that were declared */
static u32 names_used;

static bool same_name(const struct name *name, const u8 *text, u64 length)
{
    return name->length == length && equal(name->text, text, length);
}

static void set_name(struct name *name, const u8 *text, u64 length)
{
    name->length = (u8)length;
    copy(name->text, text, length);
}

static bool is_declared(const u8 *text, u64 length)
{
    for (u32 i = 0; i < names_used; i++) {
        if (same_name(&names[i], text, length)) {
            return true;
        }
    }
    return false;
}

static bool is_true(const struct watch *watch)
{
    if (watch->kind == WATCH_PORT) {
        return watch->port == AGENT_PORT || service_listener(watch->port) != NULL;
    }
    return is_declared(watch->name.text, watch->name.length);
}

/* Tells what there is instead of what is waited for. */
static void observe(const struct watch *watch)
{
    output_open(watch->control, watch->id);
    output_kind(FRAME_OBSERVED);
    if (watch->kind == WATCH_PORT) {
        output_text("nobody listens on it, but on ");
        output_decimal(AGENT_PORT);
        service_print_ports();
        output_text(" (vsock)");
    } else if (names_used == 0) {
        output_text("the guest has declared nothing");
    } else {
        output_text("the guest has declared ");
        for (u32 i = 0; i < names_used; i++) {
            if (i != 0) {
                output_text(", ");
            }
            output_bytes(names[i].text, names[i].length);
        }
    }
    output_send();
}

/* False when the payload asks for anything else. */
static bool parse_watch(struct watch *watch, const u8 *payload, u32 length)
{
    if (length == 0) {
        return false;
    }
    watch->kind = payload[0];
    if (watch->kind == WATCH_PORT && (length == 3 || length == 5)) {
        watch->port = length == 3 ? load16(payload + 1) : load32(payload + 1);
        return true;
    }
    if (watch->kind == WATCH_READY && length > 1 && length - 1 <= READY_LENGTH) {
        set_name(&watch->name, payload + 1, length - 1);
        return true;
    }
    return false;
}

static void watch_begin(struct connection *c, u64 id, const u8 *payload, u32 length)
{
    static const char unsupported[] = "backend.unsupported\0the micro guest can wait for ports of "
                                      "echo-server and names of ready only";
    static const char full[] = "vm.state\0the micro guest can wait for 64 things at once";
    struct watch watch;
    u32 entry = 0;

    watch.control = c;
    watch.id = id;
    if (!parse_watch(&watch, payload, length)) {
        agent_reply(c, id, FRAME_ERROR, unsupported, sizeof(unsupported) - 1);
        return;
    }
    if (is_true(&watch)) {
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
    copy(&watches[entry], &watch, sizeof(watch));
    observe(&watch);
}

static void watch_end(u64 id)
{
    for (u32 i = 0; i < watches_used; i++) {
        if (watches[i].id == id) {
            watches[i].control = NULL;
        }
    }
}

/* Something of a kind came true: whoever waited for it is answered, the others hear of it. */
static void review(u32 kind)
{
    for (u32 i = 0; i < watches_used; i++) {
        struct connection *control = watches[i].control;
        if (control == NULL || watches[i].kind != kind) {
            continue;
        }
        if (is_true(&watches[i])) {
            watches[i].control = NULL;
            agent_reply(control, watches[i].id, FRAME_DONE, NULL, 0);
        } else {
            observe(&watches[i]);
        }
    }
}

static void watch_opened(void) { review(WATCH_PORT); }

static bool ready_declare(const u8 *name, u64 length)
{
    if (is_declared(name, length)) {
        return true;
    }
    if (names_used == NAMES) {
        return false;
    }
    set_name(&names[names_used++], name, length);
    review(WATCH_READY);
    return true;
}

static void watch_forget(void)
{
    for (u32 i = 0; i < watches_used; i++) {
        watches[i].control = NULL;
    }
}
