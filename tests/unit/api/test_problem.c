/* The catalogue of errors, and problems made from it. */
#include "api/internal.h"

#include <criterion/criterion.h>
#include <errno.h>

Test(api_problem, every_code_has_status_title_and_advice_of_its_own)
{
    for (int code = ERR_NONE + 1; code < ERR_COUNT; code++) {
        const struct api_problem_kind *kind = api_problem_kind((enum error_code)code);
        const char *name = error_code_name((enum error_code)code);
        cr_assert(code == ERR_INTERNAL || kind != api_problem_kind(ERR_INTERNAL), "%s", name);
        cr_assert(kind->status >= 400 && kind->status < 600, "%s: %u", name, kind->status);
        cr_assert(kind->title != NULL && kind->title[0] != '\0', "%s", name);
        cr_assert(kind->remediation != NULL && kind->remediation[0] != '\0', "%s", name);
    }
}

Test(api_problem, retry_after_stands_with_429_and_503_only_and_with_each)
{
    for (int code = ERR_NONE + 1; code < ERR_COUNT; code++) {
        const struct api_problem_kind *kind = api_problem_kind((enum error_code)code);
        bool later = kind->status == 429 || kind->status == 503;
        cr_assert((kind->retry_after_s > 0) == later, "%s", error_code_name((enum error_code)code));
    }
}

Test(api_problem, a_want_of_descriptors_is_one_of_room_whatever_they_were_for)
{
    static const int wants[] = {EMFILE, ENFILE};
    for (size_t i = 0; i < COUNT_OF(wants); i++) {
        struct error err = {0};
        struct api_response response = {0};
        error_set(&err, ERR_CONFIG, wants[i], "opening");
        api_problem(&err, "0123456789abcdef", NULL, &response);
        cr_assert_eq(response.status, 503);
        cr_assert_gt(response.retry_after_s, 0);
        cr_assert_eq(response.code, ERR_CAPACITY);
        api_response_release(&response);
    }
}

Test(api_problem, unknown_codes_are_internal_errors)
{
    cr_assert(api_problem_kind((enum error_code)(ERR_COUNT + 7)) == api_problem_kind(ERR_INTERNAL));
    cr_assert(api_problem_kind(ERR_NONE) == api_problem_kind(ERR_INTERNAL));
}

static cJSON *made(const struct error *err, cJSON *context, struct api_response *response)
{
    struct error parse = {0};
    cJSON *json = NULL;
    api_problem(err, "0123456789abcdef", context, response);
    cr_assert_eq(json_parse(response->body, response->body_len, &json, &parse), 0, "%s", parse.msg);
    return json;
}

static const char *text_of(const cJSON *json, const char *name)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(json, name);
    cr_assert(cJSON_IsString(member), "%s", name);
    return member->valuestring;
}

Test(api_problem, has_the_members_of_rfc_9457_and_ours)
{
    struct error err = {0};
    struct api_response response cleanup(api_response_release) = {0};
    error_set(&err, ERR_EXEC_TIMEOUT, 0, "the command ran for 10 ms");
    cJSON *context = cJSON_CreateObject();
    json_add_string(context, "stdout", "half");
    cleanup_json cJSON *json = made(&err, context, &response);
    cr_assert_eq(response.status, 504);
    cr_assert_str_eq(response.content_type, "application/problem+json");
    cr_assert_str_eq(text_of(json, "type"), "urn:motte:error:exec_timeout");
    cr_assert_str_eq(text_of(json, "code"), "exec_timeout");
    cr_assert_str_eq(text_of(json, "detail"), "the command ran for 10 ms");
    cr_assert_str_eq(text_of(json, "request_id"), "0123456789abcdef");
    cr_assert_str_eq(text_of(json, "remediation"), api_problem_kind(ERR_EXEC_TIMEOUT)->remediation);
    cr_assert_eq(cJSON_GetObjectItemCaseSensitive(json, "status")->valuedouble, 504);
    cr_assert_str_eq(text_of(cJSON_GetObjectItemCaseSensitive(json, "context"), "stdout"), "half");
}

/* A message may carry anything: a guest's words, or UTF-8 cut in the middle of a character. */
Test(api_problem, R06_any_bytes_in_a_message_still_make_valid_json)
{
    unsigned seed = (unsigned)clock_mono_us();
    for (int round = 0; round < 2000; round++) {
        struct error err = {.code = ERR_GUEST_REFUSED};
        struct api_response response cleanup(api_response_release) = {0};
        size_t len = (size_t)rand_r(&seed) % (sizeof(err.msg) - 1);
        for (size_t i = 0; i < len; i++)
            err.msg[i] = (char)(1 + rand_r(&seed) % 255);
        cleanup_json cJSON *json = made(&err, NULL, &response);
        cr_assert_str_eq(text_of(json, "code"), "guest_refused");
    }
}

static int failing(struct api *api, const struct api_request *request,
                   struct api_response *response, struct error *err)
{
    (void)api;
    (void)request;
    (void)response;
    return error_set(err, ERR_CAPACITY, 0, "no memory left for this VM");
}

Test(api_problem, a_handlers_error_becomes_the_answer)
{
    const struct api_route route = {.handler = failing};
    const struct api_request request = {.request_id = "0123456789abcdef"};
    struct api_response response cleanup(api_response_release) = {0};
    api_dispatch(NULL, &route, &request, &response);
    cr_assert_eq(response.status, 503);
    cr_assert_eq(response.code, ERR_CAPACITY);
    cr_assert_gt(response.retry_after_s, 0);
    cr_assert(strstr(response.body, "no memory left for this VM") != NULL);
}
