/* How a Cortex-M4 starts: its stack, and what it does first. */
#include <stdint.h>

extern void _start(void);

static void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* the floating-point unit */
    _start();
}

/* The C library asks QEMU for another stack. */
__attribute__((section(".vectors"), used)) static const struct {
    void *stack;
    void (*start)(void);
    void *others[14];
} vectors = { (void *)0x20400000, reset, { 0 } };
