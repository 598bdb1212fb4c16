"""Which addresses does the census answer?"""

from django.urls import path

from demo.census import views

urlpatterns = [
    path("", views.start_page, name="census-start-page"),
    path("census/", views.start_census, name="census-start"),
    path("reports/<int:run_id>/", views.report_page, name="census-report"),
]
