/* Prints the rate of the TSC in kHz, as the root half measures it for QEMU's guests. */
#include "priv/internal.h"

int main(void)
{
    printf("%u\n", priv_tsc_khz());
    return 0;
}
