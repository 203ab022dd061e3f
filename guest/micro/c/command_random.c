/* `random N` prints N bytes in hex, once there is entropy. */
#include "commands.h"
#include "entropy.h"
#include "exec.h"
#include "memory.h"
#include "output.h"
#include "random.h"
#include "text.h"

#define RANDOM_MAX MIB(1)

/* argument[0]: bytes still to print. */
static bool produce_random(struct connection *c)
{
    u64 some = c->argument[0] < OUTPUT_PIECE / 2 ? c->argument[0] : OUTPUT_PIECE / 2;
    u8 *to = output_reserve((u32)(2 * some));
    u64 left = some;

    while (left != 0) {
        u64 word = random_next();
        u64 count = left < 8 ? left : 8;
        text_hex_bytes(to, (const u8 *)&word, count);
        to += 2 * count;
        left -= count;
    }
    output_written((u32)(2 * some));
    c->argument[0] -= some;
    if (c->argument[0] != 0) {
        return false;
    }
    output_bytes("\n", 1);
    return true;
}

COMMAND command_random(struct connection *c)
{
    u64 bytes;

    if (!command_number(1, &bytes) || bytes > RANDOM_MAX) {
        return command_fail(2, "usage: random BYTES (at most 1048576)\n");
    }
    c->argument[0] = bytes;
    c->produce = produce_random;
    if (entropy_pending()) {
        c->exec = EXEC_ENTROPY;
        return EXEC_PENDING;
    }
    return EXEC_PRODUCING;
}

static void resume_random(struct connection *c, void *context)
{
    (void)context;
    if (c->exec == EXEC_ENTROPY) {
        c->exec = EXEC_PRODUCE;
        exec_pump(c);
    }
}

static void commands_entropy_arrived(void)
{
    connections_each(resume_random, NULL);
    resume_random(connection_console(), NULL);
}
