/* The interrupt descriptor table and the vectors.
 *
 * Interrupts are enabled only while the processor halts (wait_for_interrupt in cpu.h), so a device's
 * vector saves nothing: it sets the device's bit in irq_pending, ends the interrupt and returns.
 * Each vector occupies VECTOR_SIZE bytes at VECTORS, the start of the image. */

#define VECTORS 0x100000
#define VECTOR_SIZE 32
#define SPURIOUS 63

    .section .vectors, "ax"
    .code64
    .set vector, 0
    .rept 64
    .balign VECTOR_SIZE
    .if vector < 32                 /* an exception; these push an error code themselves: */
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
    pushq $vector
    .else
    pushq $0
    pushq $vector
    .endif
    jmp exception_common
    .elseif vector == SPURIOUS
    iretq
    .else
    orl $(1 << (vector - 32)), irq_pending
    movabsl %eax, 0xfee000b0        /* end of interrupt; the value is ignored */
    iretq
    .endif
    .set vector, vector + 1
    .endr

    .balign VECTOR_SIZE
exception_common:
    movq %rsp, %rdi                 /* vector, error code, RIP, CS, RFLAGS, RSP, SS */
    andq $-16, %rsp
    call exception

    .section .rodata
    .align 8
idt:
    .set vector, 0
    .rept 64
    .short (vector * VECTOR_SIZE)   /* offset, bits 0 to 15 */
    .short 0x08                     /* 64-bit code */
    .short 0x8e00                   /* present, interrupt gate */
    .short (VECTORS >> 16)
    .long 0, 0
    .set vector, vector + 1
    .endr
    .globl idt_pointer
idt_pointer:
    .short 64 * 16 - 1
    .quad idt
    .globl no_idt_pointer
no_idt_pointer:
    .short 0
    .quad 0

    .section .note.GNU-stack, "", @progbits
