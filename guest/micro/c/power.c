#include "power.h"
#include "command_line.h"
#include "console.h"
#include "cpu.h"
#include "text.h"

#define PVPANIC_PORT 0x505
#define PVPANIC_PANICKED 1

extern u8 no_idt_pointer[];

/* An exception without a table to handle it: the processor shuts down, which every host sees. */
static NORETURN COLD void triple_fault(void)
{
    __asm__ volatile("lidt (%0)\n\tmovb $0, (%1)" ::"r"(no_idt_pointer), "r"(1ul << 45) : "memory");
    for (;;) {
        __asm__ volatile("cli\n\thlt" ::: "memory");
    }
}

static NORETURN COLD void panic(const char *why)
{
    console_write("vmoon micro: panic: ", 20);
    console_write(why, text_length(why));
    console_write("\n", 1);
    out8(PVPANIC_PORT, PVPANIC_PANICKED);
    /* Nobody listens on that port if the program still runs. */
    triple_fault();
}

static COLD void write_register(struct register_write write)
{
    if (write.address > 0xffff) {
        *(volatile u8 *)write.address = write.value;
    } else {
        out8((u16)write.address, write.value);
    }
}

static NORETURN COLD void power_off(void)
{
    if (command_line.poweroff.given) {
        write_register(command_line.poweroff);
    }
    triple_fault();
}

static NORETURN COLD void reboot(void)
{
    if (command_line.reset.given) {
        write_register(command_line.reset);
    }
    triple_fault();
}

static NORETURN COLD void hang(void)
{
    for (;;) {
        pause();
    }
}

/* Called by the vectors of exceptions (interrupts.S). */
NORETURN COLD __attribute__((used)) void exception(const u64 *frame)
{
    static char text[] = "exception 00, error 0000000000000000, RIP 0000000000000000, "
                         "CR2 0000000000000000";
    text[10] = (char)('0' + frame[0] / 10);
    text[11] = (char)('0' + frame[0] % 10);
    text_hex((u8 *)text + 20, frame[1]);
    text_hex((u8 *)text + 42, frame[2]);
    text_hex((u8 *)text + 64, read_cr2());
    panic(text);
}
