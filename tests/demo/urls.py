"""Which addresses does the demo answer?"""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def no_icon(request: HttpRequest) -> HttpResponse:
    """Say that there is no icon: browsers ask for one on every page that names none."""
    return HttpResponse(status=204)


urlpatterns = [
    path("favicon.ico", no_icon),
    path("", include("demo.census.urls")),
    path("admin/", admin.site.urls),
]
