"""The routes of the dashboard's pages, for the application's table."""

from aiohttp.typedefs import Handler

from mintoken.context import Access
from mintoken.pages import static
from mintoken.routes import (
    pages_account,
    pages_keys,
    pages_overview,
    pages_playground,
    pages_requests,
    pages_rules,
    pages_savings,
    pages_sign_in,
    pages_welcome,
)

DASHBOARD: tuple[tuple[str, str, Handler, Access], ...] = (
    ("GET", "/dashboard/static/{name}", static, Access.SIGN_IN),
    ("GET", "/dashboard/sign-in", pages_sign_in.show, Access.SIGN_IN),
    ("POST", "/dashboard/sign-in", pages_sign_in.sign_in, Access.SIGN_IN),
    ("POST", "/dashboard/sign-out", pages_sign_in.sign_out, Access.SIGN_IN),
    ("GET", "/dashboard/welcome/{token}", pages_welcome.show, Access.SIGN_IN),
    ("POST", "/dashboard/welcome/{token}", pages_welcome.create, Access.SIGN_IN),
    ("GET", "/dashboard", pages_overview.overview, Access.VIEWER),
    ("GET", "/dashboard/charts/{name}", pages_overview.chart, Access.VIEWER),
    ("GET", "/dashboard/requests", pages_requests.list_requests, Access.VIEWER),
    ("GET", "/dashboard/requests/{id}", pages_requests.show, Access.VIEWER),
    ("GET", "/dashboard/keys", pages_keys.list_keys, Access.VIEWER),
    ("POST", "/dashboard/keys", pages_keys.create, Access.ADMIN),
    ("GET", "/dashboard/keys/{id}", pages_keys.edit, Access.ADMIN),
    ("POST", "/dashboard/keys/{id}", pages_keys.update, Access.ADMIN),
    ("POST", "/dashboard/keys/{id}/rotate", pages_keys.rotate, Access.ADMIN),
    ("POST", "/dashboard/keys/{id}/revoke", pages_keys.revoke, Access.ADMIN),
    ("GET", "/dashboard/playground", pages_playground.playground, Access.VIEWER),
    ("GET", "/dashboard/rules", pages_rules.list_rules, Access.VIEWER),
    ("POST", "/dashboard/rules", pages_rules.add, Access.ADMIN),
    ("POST", "/dashboard/rules/try", pages_rules.try_text, Access.VIEWER),
    ("POST", "/dashboard/rules/{id}/remove", pages_rules.remove, Access.ADMIN),
    ("GET", "/dashboard/savings", pages_savings.savings, Access.VIEWER),
    ("POST", "/dashboard/savings/measure", pages_savings.measure, Access.ADMIN),
    ("GET", "/dashboard/account", pages_account.show, Access.VIEWER),
    ("POST", "/dashboard/account/quota", pages_account.change_quota, Access.OWNER),
    ("POST", "/dashboard/account/members", pages_account.add_member, Access.OWNER),
    ("POST", "/dashboard/account/members/{id}/remove", pages_account.remove_member, Access.OWNER),
)
