/* Lists of those who wait for news. */
#include "base/base.h"

void waker_add(struct waker **list, struct waker *waker)
{
    if (waker->link != NULL)
        return;
    waker->next = *list;
    waker->link = list;
    if (waker->next != NULL)
        waker->next->link = &waker->next;
    *list = waker;
}

void waker_remove(struct waker *waker)
{
    if (waker->link == NULL)
        return;
    *waker->link = waker->next;
    if (waker->next != NULL)
        waker->next->link = waker->link;
    waker->next = NULL;
    waker->link = NULL;
}

void waker_wake_all(struct waker **list)
{
    while (*list != NULL) {
        struct waker *waker = *list;
        waker_remove(waker);
        waker->wake(waker);
    }
}
